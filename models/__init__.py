"""Everything with weights or a formula, in plain torch and numpy. Never imports ray or ray_jobs.

Shipped alone, as the inference library `enclap`.
"""

import lazy_loader

__version__ = "0.2.0"  # of both distributions: the checkout, and the inference library
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
