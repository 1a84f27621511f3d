"""Runs the command `viscera` on each CT series of MHub's pipeline. Python 3.8, as MHub's image has it."""

import os
import shutil
import subprocess
import tempfile

from mhubio.core import IO, Instance, InstanceData, Module

# SegDB's names of the organs of Viscera's own network. The SEG has a segment for tumours too, with its own code: SegDB
# knows malignant ones only.
ROI = (
    "LIVER,RIGHT_KIDNEY,SPLEEN,PANCREAS,AORTA,INFERIOR_VENA_CAVA,RIGHT_ADRENAL_GLAND,LEFT_ADRENAL_GLAND,GALLBLADDER,"
    "ESOPHAGUS,STOMACH,DUODENUM,LEFT_KIDNEY"
)


@IO.Config("program", str, "/opt/viscera/bin/viscera", the="path of the command viscera")
@IO.Config("flags", list, [], the="its flags, such as --plan=dense")
class VisceraRunner(Module):
    """DICOM in, DICOM SEG out: nothing is converted before or after."""

    program: str
    flags: list

    @IO.Instance()
    @IO.Input("in_data", "dicom:mod=ct", the="slices of a CT series")
    @IO.Output(
        "out_data",
        "viscera.seg.dcm",
        "dicomseg:mod=seg:model=Viscera:roi=" + ROI,
        data="in_data",
        the="DICOM SEG with a segment for each label that was found",
    )
    def task(self, instance: Instance, in_data: InstanceData, out_data: InstanceData) -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [self.program, in_data.abspath, folder, "--format=seg", "--no-sidecar", *self.flags]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.log(done.stdout)
            found = [name for name in os.listdir(folder) if name.endswith(".seg.dcm")]
            if done.returncode or len(found) != 1:
                raise RuntimeError(f"viscera ended with exit code {done.returncode} and {len(found)} segmentations")
            shutil.copy(os.path.join(folder, found[0]), out_data.abspath)
