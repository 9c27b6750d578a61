"""Missing values drawn given what came before and what was observed later."""
