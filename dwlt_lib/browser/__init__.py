"""The widgets over records, and the two servers that show them (JupyterLab and Voila).

Here stands what is clicked; every number comes from records or `analysis`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
