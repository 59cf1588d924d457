"""Fieldmarks: fine-grained image retrieval, telling apart and finding again things that look alike.

    import fieldmarks as fm

    backbone = fm.create_backbone("tf_efficientnet_lite0", weights="bundled", image_size=224)
    method = fm.VAPNet(backbone, classes=100)

Names load when they are first used; `__init__.pyi` lists them.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("fieldmarks")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
