"""Reduction of a design to triangular factors of whitened rows: they serve a whole sweep.

A full factorial of levels × 2Jmax × weights × subsets has tens of thousands of weighted least-squares fits

    min_β  Σ_k w_k² ‖X_k β − y_k‖²,   k = energy, force, stress.

This package computes all of them, with their training and test errors, from a few passes over the rows X and matrices
of the size of the model. Its results are tested against QR of the stacked rows (`paretofit.linear.fit_wls`).

**Nested columns.** A bispectrum component (j1, j2, j) does not depend on 2Jmax, so with columns in the order of the
smallest 2Jmax at which they appear, the constant first, every smaller model is a leading block of p columns of X.
Rows are computed once, at the largest 2Jmax.

**Quadratic rows as products.** With the descriptors B (N × K) of N atoms and dB/dR, the quadratic energy row of a
configuration is the upper triangle of BᵀB / N, its diagonal halved, and the row of force component (a, α) is minus the
upper triangle of M + Mᵀ, its diagonal halved, with M = (dB/dR_aα)ᵀ B: a small matrix product for each row, exact to
rounding (`paretofit.descriptors`).

**Whitening.** One pass folds the rows [X | Y] of each kind into triangles, one of training rows and one of test rows.
With W the weights of a typical fit, the triangles of the training rows are stacked at W and folded,

    W [X | Y] = Q [R₀ | θ],   U = X R₀⁻¹,

so that the columns of W U are orthonormal, though those of X may be nearly dependent (with condition numbers of 1e8
when scaled to unit norm), and θ is a fit of each level. R₀ is upper triangular, so the first p columns of U span the
first p columns of X. Test rows are stacked, too, at a weight of 1e-6, so that a column that is nonzero only in test
rows is retained. A column is dropped, and its name reported, if its residual after a fit to earlier columns, |r_jj| in
this triangle, is a rounding error. The factors of the whitened rows follow from those of the raw rows by a product
with R₀⁻¹.

**Factors.** With the residuals y' = y − U θ of the baseline θ, the rows of each kind k of a set of configurations,
for all levels at once, are represented by a triangle (`RowFactor`)

    [U | Y']_k = Q_k R_k.

A training subset, the test set, a fold and a bootstrap sample are objects of this class. It has three operations.

*Grow*: more rows A are folded in, R' of [R; A] = Q R', which is stable at any condition number and costs 2 n P²
operations; rows that are fewer than the columns are not folded. Where the rows of a kind are well-conditioned,
cond(UᵀU) ≤ 1e8 with unit columns, and explain the targets only in part, they are added to the Gram matrix
G = RᵀR + AᵀA instead: n P² operations at the rate of a matrix product, three times as fast. On real data, errors from
the Cholesky factor of G then agree with those from folded rows to 5e-9. Columns of zeros, such as those of constants in
force rows, are left out of the Cholesky factor. A set usually remains well-conditioned as it grows; this is checked at
every subset, whose rows are otherwise folded again. A configuration that counts m times, as in a bootstrap sample, has
rows multiplied by √m. The subsets of a draw are nested, so they grow along a chain.

*Weight*: the triangles of the kinds are stacked at weights w and folded,

    Rᵀ[R | C] = Σ_k w_k² U_kᵀ[U_k | Y'_k],   δ_p = R_pp⁻¹ (C_p + R_p> θ_>),   β = R₀_pp⁻¹ (θ_p + δ_p):

R_pp is the leading block, and R_p> the columns to the right of it. The leading blocks of one triangle are those of all
smaller models, and its right-hand sides those of all levels, so a subset and a pair of weights need one triangle, and
each level and 2Jmax a triangular solve. The leverages of weighted rows are the squared row norms of
w U R⁻¹ = w X (R R₀)⁻¹, and their partial sums over the first p columns those of the smaller models.

*Residual*: for any coefficients δ,

    ‖U_k δ − y'‖² = ‖R_k (δ, −1)‖²,

a sum of squares that cannot cancel, for training and test sets alike. Test rows have a first column of ones; without
the first row of R, the norm is that of deviations from the mean. In the Cholesky factor of a Gram matrix, the block of
the targets is a factor of Y'ᵀY' − CᵀC, in which at most five digits may cancel.

**Conditioning.** The condition number of a fit is that of T = R R₀ D⁻¹, the triangle of the weighted rows in raw
columns of unit norm, estimated in the 1-norm from products and solves with R and R₀. A fit by a triangle ("factor")
agrees with QR of the rows to rounding at any condition number. Where the rank of T is in doubt, or the rows are fewer
than the columns ("rank-revealing"), a few rows that are equivalent to all of them, A = X D⁻¹, are decomposed the other
way, Aᵀ = Q T: the null vectors N of this T, found by inverse iteration without pivoting, are the dependencies of the
rows, and the triangle of [T; Nᵀ] gives the fits of minimum norm at all weights
(`MinimumNormFactor`). Rank, condition number and solver are columns of the results table.

**Weight path.** With RᵀR = w_E² G_E + w_F² G_F at one ratio w_E/w_F, and the symmetric eigenproblem
R⁻ᵀ w_E² G_E R⁻¹ = V Λ Vᵀ, the fit at √t times this ratio is

    δ(t) = R⁻¹ V (t Λ + 1 − Λ)⁻¹ Vᵀ R⁻ᵀ (t w_E² c_E + w_F² c_F):

each ratio costs O(p²), so the front of energy and force errors is a continuous curve, and its knee can be computed.

**Leave-one-out.** With V = w U R⁻¹ and the weighted residuals r_b of the rows b of a configuration or group, the
residuals of these rows in a fit without them are (1 − V_b V_bᵀ)⁻¹ r_b. Where 1 − V_b V_bᵀ is singular, these residuals
are not determined.

**Ridge.** A penalty λ Σ d_j² β_j², d_j being the norm of weighted column j, is one more kind of row: the rows √λ 1
below T, without those of unpenalised columns, are folded in.

**Mixtures.** A training set with labels of several levels l has rows [C_l | U_l | y_l], C_l being a copy of the
constant columns of the energies of each level below the top one, for the offset of its reference energies. Its factor
is folded from those of the levels, with the targets y_l = Y'_l + U (θ_l − θ_top) (`MixedFactors`).

**Committees.** A bootstrap member weights configuration m by n_m, M = Σ n_m w² U_mᵀU_m: a sum of Gram matrices and one
Cholesky factor for each member (`paretofit.uncertainty`). Similar sums over groups of configurations, each with its
weight, M(w) = Σ_g w_g² G_g, give the gradients of held-out errors with respect to these weights.

Sources: Å. Björck, Numerical Methods for Least Squares Problems (1996); A. van der Sluis, Numer. Math. 14, 14 (1969);
M. A. Wood and A. P. Thompson, J. Chem. Phys. 148, 241721 (2018) for the quadratic model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
