"""What a study asks for: data sets, training recipes, attacks, and the records that follow.

Here stand frozen descriptions, the parameter file, and the plan of records and jobs. No torch, no
images: everything here can be read and planned on any machine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
