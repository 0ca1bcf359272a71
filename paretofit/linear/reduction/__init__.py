"""Reduction of a design to triangular factors and moments: one factorisation serves a whole sweep.

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

**Whitening.** With W the weights of a typical fit and D the norms of the columns of W X, the Cholesky factor of

    D⁻¹ XᵀW²X D⁻¹ + ε 1 = SᵀS,   R₀ = S D,   U = X R₀⁻¹

gives columns U that are moderately conditioned, though those of X may not be (1e8 when scaled). R₀ need not be the
exact QR factor: with ε from 1e-15 to 1e-10, test errors agreed with QR of all rows to nine digits (64,248 × 1,596
rows). R₀ is upper triangular, so the first p columns of U span the first p columns of X. A column whose pivot is tiny
is tested against the rows themselves: it is dropped, by name, if its residual after a fit to earlier columns is
rounding.

**Moments.** With the residuals y' = y − U θ of a baseline θ (R₀⁻ᵀXᵀW²Y, or its leading block for a smaller model), a
subset of configurations is reduced, for each kind k of row and for all levels at once, to

    G_k = Σ u uᵀ,   c_k = Σ u y'ᵀ,   s_k = Σ y'².

Moments are sums: they grow along a chain of nested subsets (prefixes of one draw without replacement), and are
accumulated in parts, by threads, workers or a GPU.

**Nested factors.** At weights w, with M = Σ w_k² G_k and c = Σ w_k² c_k,

    M = RᵀR,   M_pp = R_ppᵀ R_pp,   δ = M_pp⁻¹ c_p,   β = R₀_pp⁻¹ (θ + δ):

the leading blocks of one Cholesky factor are those of all smaller models, so a subset and a pair of weights need
one factorisation, and each level and 2Jmax two triangular solves. The leverages of weighted rows are the squared row
norms of w U R⁻¹ = w X (R R₀)⁻¹, and their partial sums over the first p columns those of the smaller models.

**Errors without rows.** Training errors follow from the moments,

    ‖y' − U δ‖² = s − 2 cᵀδ + δᵀGδ,

where no term is larger than the residuals of the baseline; where the sum is below 1e-5 of its terms, digits are lost
and rows are used instead. Test errors follow from one QR factor of the test rows of each kind,

    [1 | U | y'] = Q R,   ‖U δ − y'‖² = ‖R_U δ − R_y'‖²,

a sum of squares that cannot cancel. The first column is constant, so without the first row of R the norm is that about
the mean.

**Conditioning.** Normal equations in X would square its condition number, so that few accurate digits would remain.
cond(M), in whitened columns, is about the square of the ratio of w to the weights in R₀. It is estimated at every fit
from R with unit columns:

    cond(M) ≤ 1e8        "whitened": the fit from moments agrees with QR to 1e-8;
    cond(M) ≤ 1e12       "refined": corrected semi-normal equations with the subset's rows,
                         δ ← δ + M⁻¹ Uᵀw²(y' − U δ), each step gains a factor of 1 / (cond(M) × epsilon);
    otherwise            QR of the subset's rows; of minimum norm in scaled columns if rank-deficient.

Rank, condition number and solver are columns of the results table.

**Weight path.** With RᵀR = w_E² G_E + w_F² G_F and the symmetric eigenproblem R⁻ᵀ w_E² G_E R⁻¹ = V Λ Vᵀ, the fit at √t
times that ratio w_E/w_F is

    δ(t) = R⁻¹ V (t Λ + 1 − Λ)⁻¹ Vᵀ R⁻ᵀ (t w_E² c_E + w_F² c_F):

each ratio costs O(p²), so the front of energy and force errors is a continuous curve, and its knee can be computed.

**Leave-one-out.** With V = w U R⁻¹ and the weighted residuals r_b of the rows b of a configuration or group, the
residuals of a fit without them are (1 − V_b V_bᵀ)⁻¹ r_b; where that matrix is singular they are not determined.

**Ridge.** A penalty λ Σ d_j² β_j², d_j being the norm of weighted column j (0 for unpenalised columns), is
λ R₀⁻ᵀ diag(d²) R₀⁻¹ in whitened coefficients. R₀⁻¹ is triangular, so its leading blocks are the penalties of the
smaller models, and it is added to M.

**Committees.** A bootstrap member weighs configuration m by n_m, M = Σ n_m w² U_mᵀU_m: a sum of moments and one
Cholesky factor for each member (`paretofit.uncertainty`). Similar sums over groups of configurations, each with its
weight, M(w) = Σ_g w_g² G_g, give the gradients of held-out errors with respect to these weights.

Sources: Å. Björck, Numerical Methods for Least Squares Problems (1996); A. van der Sluis, Numer. Math. 14, 14 (1969);
M. A. Wood and A. P. Thompson, J. Chem. Phys. 148, 241721 (2018) for the quadratic model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
