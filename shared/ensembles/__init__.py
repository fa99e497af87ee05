"""Ensembles: several pricers asked at once, their estimates mixed, and nobody missed for long.

Weights and intervals are fitted on validation predictions alone. A member that fails is left out,
the others' weights grow to one again, and the interval becomes that of those that answered.
"""

from shared.ensembles.asking import Answer
from shared.ensembles.fitting import fit_ensemble
from shared.ensembles.gain import Gain, LeftOut, gain, leave_one_out
from shared.ensembles.model import Case, Ensemble, EnsembleError, Member, open_ensemble
from shared.ensembles.pricer import EnsemblePricer, Tally
from shared.ensembles.stored import Recorded, price_stored, recorded
from shared.ensembles.weights import fit_weights, log_mix

__all__ = [
    "Answer",
    "Case",
    "Ensemble",
    "EnsembleError",
    "EnsemblePricer",
    "Gain",
    "LeftOut",
    "Member",
    "Recorded",
    "Tally",
    "fit_ensemble",
    "fit_weights",
    "gain",
    "leave_one_out",
    "log_mix",
    "open_ensemble",
    "price_stored",
    "recorded",
]
