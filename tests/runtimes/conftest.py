"""What the command line does before a runtime is made, and what timm needs to import torchvision."""

from lightmuseg.networks.torchvision_operators import declare_missing_operators
from lightmuseg.process import send_no_telemetry

declare_missing_operators()
send_no_telemetry()
