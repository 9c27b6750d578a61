# Rscript glmmtmb.R, beside glmmtmb.csv (python glmmtmb.py). Dispersions: 1 / sqrt(sigma) is bdtr's sigma in both.
library(glmmTMB)
d <- read.csv("glmmtmb.csv")
for (m in list(
  glmmTMB(count ~ x + a + (1 | site), d, family = nbinom2, offset = log(m)),
  glmmTMB(cbind(k, m - k) ~ x + a + (1 | site), d, family = betabinomial)
)) {
  print(summary(m)$coefficients$cond[, 1:2], digits = 6)
  print(c(attr(VarCorr(m)$cond$site, "stddev"), 1 / sqrt(sigma(m))), digits = 6)
}
