"""Names of the initialisations of layers between weight spaces; `layers.base` and `layers.reference_scales` do them."""

INIT_TYPES = ("pytorch_default", "kaiming_normal", "xavier_normal", "xavier_uniform", "uniform", "reference")
