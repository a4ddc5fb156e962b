from reblurkit import adaptation as adaptation
from reblurkit import blur as blur
from reblurkit import data as data
from reblurkit import inference as inference
from reblurkit import losses as losses
from reblurkit import metrics as metrics
from reblurkit import models as models
from reblurkit import pictures as pictures
from reblurkit import plugins as plugins
from reblurkit.plugins.callbacks.adaptation import TestTimeAdaptCallback as TestTimeAdaptCallback
from reblurkit.plugins.callbacks.flow_reblur import FlowReblurFinetuneCallback as FlowReblurFinetuneCallback
from reblurkit.plugins.callbacks.own_blur import AdaptToBlurCallback as AdaptToBlurCallback
from reblurkit.plugins.datamodules.folders import DemoDataModule as DemoDataModule
from reblurkit.plugins.datamodules.folders import PairedDataModule as PairedDataModule
from reblurkit.plugins.datamodules.folders import VideoDataModule as VideoDataModule
from reblurkit.plugins.datamodules.synthetic import SyntheticBlurDataModule as SyntheticBlurDataModule
from reblurkit.plugins.datamodules.unpaired import UnpairedDataModule as UnpairedDataModule
from reblurkit.plugins.mixins.reblur import ReblurLossMixin as ReblurLossMixin
from reblurkit.plugins.mixins.reblur import strip_reblur as strip_reblur
from reblurkit.plugins.tasks.blur2blur import Blur2BlurTranslator as Blur2BlurTranslator
from reblurkit.plugins.tasks.cycle import CycleTranslator as CycleTranslator
from reblurkit.plugins.tasks.deblur import DeblurTask as DeblurTask
from reblurkit.plugins.tasks.reblur import ReblurTask as ReblurTask

__version__: str
