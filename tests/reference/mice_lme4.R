# Rscript mice_lme4.R, beside mice_lme4.csv (python mice_lme4.py). Imputed within arms: the product with the arm is
# then compatible with the model of y.
library(mice)
library(lme4)
d <- read.csv("mice_lme4.csv")
set.seed(1)
count <- 50
arms <- lapply(0:1, function(k) {
  own <- d[d$a == k, c("x", "m", "y", "site")]
  own$site <- as.integer(factor(own$site))
  use <- matrix(0, 4, 4, dimnames = list(names(own), names(own)))
  use["m", c("x", "y")] <- 1
  use["m", "site"] <- -2
  mice(own, m = count, maxit = 1, predictorMatrix = use, method = c("", "2l.pan", "", ""), printFlag = FALSE)
})
b <- v <- NULL
for (i in 1:count) {
  whole <- rbind(cbind(complete(arms[[1]], i), a = 0), cbind(complete(arms[[2]], i), a = 1))
  whole$site <- c(d$site[d$a == 0], d$site[d$a == 1])
  f <- lmer(y ~ x + m * a + (1 | site), whole)
  b <- rbind(b, fixef(f))
  v <- rbind(v, diag(as.matrix(vcov(f))))
}
print(colMeans(b), digits = 6)
print(sqrt(colMeans(v) + (1 + 1 / count) * apply(b, 2, var)), digits = 6)
