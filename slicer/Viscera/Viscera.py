"""A module of 3D Slicer: segments a loaded CT with the installed program `viscera`, in a process of its own.

`VisceraProcess` is all of the logic. It imports nothing of Slicer's, and neither NumPy nor Viscera. The file keeps to
Python 3.9, that of Slicer 5.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence

try:
    import qt
    from slicer.ScriptedLoadableModule import (
        ScriptedLoadableModule,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleWidget,
    )

    import slicer
except ImportError:  # outside of Slicer the logic can be used and tested
    ScriptedLoadableModule = ScriptedLoadableModuleLogic = ScriptedLoadableModuleWidget = object

COMMAND = "viscera"
ENDING = ".seg.nrrd"


class VisceraProcess:
    """One scan, segmented by a program that is watched: `start`, `poll` now and then until `ended`, `clean`.

    fraction  how much is done, from 0 to 1
    message   what is going on, a sentence
    result    the segmentation, once it has ended well, else None
    error     why it has not, else None
    warnings  about the scan and the result, a sentence each
    """

    def __init__(self, command: str = "", environment: dict | None = None) -> None:
        """
        command      path of the program; empty: it is looked for in PATH
        environment  of the program; None: this process's
        """
        self.command = command
        self.environment = environment
        self.folder = tempfile.mkdtemp(prefix="viscera-")
        self.fraction = 0.0
        self.message = ""
        self.result: str | None = None
        self.error: str | None = None
        self.warnings: list = []
        self.ended = False
        self._process: subprocess.Popen | None = None
        self._lines: queue.Queue = queue.Queue()
        self._open = 0  # streams that have not ended
        self._errors: list = []
        self._stopped = False

    @property
    def scan(self) -> str:
        """Where the scan is to be written before `start`."""
        return os.path.join(self.folder, "scan_0000.nii")

    def start(self, flags: Sequence[str] = ()) -> None:
        """Run the program. If it cannot be run, `error` says why at once."""
        path = (self.environment or os.environ).get("PATH")
        program = shutil.which(self.command or COMMAND, path=path)
        if program is None:
            given = self.command or COMMAND
            self._end(f"{given} was not found: install Viscera with pip, and give the path of its command")
            return
        outputs = os.path.join(self.folder, "outputs")
        given = [program, self.scan, outputs, "--format", "seg.nrrd", "--progress", "json", *flags]
        try:
            self._process = subprocess.Popen(
                given,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment,
                text=True,
                encoding="utf-8",
                errors="replace",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._end(f"{program} cannot be started: {error.strerror}")
            return
        self.message = "Starting"
        for name in ("stdout", "stderr"):
            self._open += 1
            threading.Thread(target=self._read, args=(name, getattr(self._process, name)), daemon=True).start()

    def _read(self, name: str, stream) -> None:
        for line in stream:
            self._lines.put((name, line.strip()))
        stream.close()
        self._lines.put((name, None))

    def poll(self) -> None:
        """Take what the program has said so far; never waits for it."""
        while not self.ended:
            try:
                name, line = self._lines.get_nowait()
            except queue.Empty:
                return
            if line is None:
                self._open -= 1
                if not self._open:
                    self._finish()
            elif name == "stdout":
                self._hear(line)
            elif line.startswith("error: "):
                self._errors.append(line[len("error: ") :])

    def _hear(self, line: str) -> None:
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            return  # no line of Viscera's
        if kind == "loaded":
            self.message = f"Segmenting on {event['device']} ({event['engine']})"
        elif kind == "progress":
            self.fraction = min(max(float(event["done"]), self.fraction), 1.0)
            left = event["seconds_left"]
            if left is not None:
                self.message = f"Segmenting, {left:.0f} s left"
        elif kind == "case":
            self.warnings = list(event["warnings"])
            files = [name for name in event["files"] if name.endswith(ENDING)]
            if event["status"] == "done" and files:
                self.result = os.path.join(self.folder, "outputs", files[0])
            else:
                self.error = event["error"]

    def _finish(self) -> None:
        code = self._process.wait()
        if self._stopped:
            self.result = None
            self._end("Stopped")
        elif code == 0 and self.result:
            self.fraction, self.message, self.ended = 1.0, "Done", True
        else:
            said = self.error or (self._errors[-1] if self._errors else "it gave no reason")
            self.result = None
            self._end(f"{said} (exit code {code})")

    def _end(self, error: str) -> None:
        self.error, self.message, self.ended = error, error, True

    def stop(self) -> None:
        """Ask the program to end, which takes about a second; `poll` hears of it."""
        self._stopped = True
        if self._process is not None:
            self._process.terminate()

    def clean(self) -> None:
        """Remove the scan and the segmentation, and end the program if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Viscera(ScriptedLoadableModule):
    """What Slicer shows of the module."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "Viscera"
        parent.categories = ["Segmentation"]
        parent.dependencies = []
        parent.contributors = ["The Viscera authors"]
        parent.helpText = (
            "Segments 13 abdominal organs and tumours in CT, or whatever your own networks know, with the installed "
            "program viscera. No GPU is needed. Research use only: not a medical device."
        )
        parent.acknowledgementText = "The model card of Viscera names the data that its network was trained on."


class VisceraLogic(ScriptedLoadableModuleLogic):
    """Between Slicer's scene and `VisceraProcess`."""

    def prepare(self, volume, command: str) -> VisceraProcess:
        """A process that is ready to start: the scan is written."""
        process = VisceraProcess(command, slicer.util.startupEnvironment())  # without Slicer's own Python
        # A storage node of its own: the volume keeps the file that it came from.
        storage = slicer.mrmlScene.CreateNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName(process.scan)
        storage.UseCompressionOff()
        written = storage.WriteData(volume)
        storage.UnRegister(None)
        if not written:
            process.clean()
            raise RuntimeError("the volume could not be written as NIfTI")
        return process

    def load(self, process: VisceraProcess, volume):
        """The segmentation as a node, with names and colours, and the volume as its reference."""
        node = slicer.util.loadSegmentation(process.result, {"name": f"{volume.GetName()} segmentation"})
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        storage = node.GetStorageNode()
        if storage is not None:  # its file is temporary: saving the scene must ask for a place
            slicer.mrmlScene.RemoveNode(storage)
        return node


class VisceraWidget(ScriptedLoadableModuleWidget):
    """Volume, program, flags; a button that starts and stops; progress."""

    EVERY = 200  # ms between two looks at the process

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = VisceraLogic()
        self.process = self.volume = None
        form = qt.QFormLayout()
        self.layout.addLayout(form)
        self.volumes = slicer.qMRMLNodeComboBox()
        self.volumes.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volumes.addEnabled = self.volumes.removeEnabled = self.volumes.renameEnabled = False
        self.volumes.setMRMLScene(slicer.mrmlScene)
        form.addRow("CT:", self.volumes)
        settings = qt.QSettings()
        self.command = qt.QLineEdit(settings.value("Viscera/Command", ""))
        self.command.placeholderText = "viscera, if it is in PATH; else the path of the command"
        form.addRow("Program:", self.command)
        self.weights = qt.QLineEdit(settings.value("Viscera/Weights", ""))
        self.weights.placeholderText = "those of the program; else a folder of exported networks"
        form.addRow("Networks:", self.weights)
        self.button = qt.QPushButton("Segment")
        self.button.connect("clicked()", self.pressed)
        self.layout.addWidget(self.button)
        self.bar = qt.QProgressBar()
        self.bar.maximum = 100
        self.layout.addWidget(self.bar)
        self.text = qt.QLabel()
        self.text.wordWrap = True
        self.layout.addWidget(self.text)
        self.layout.addStretch(1)
        self.timer = qt.QTimer()
        self.timer.connect("timeout()", self.look)

    def cleanup(self) -> None:
        self.timer.stop()
        if self.process is not None:
            self.process.clean()
            self.process = None

    def pressed(self) -> None:
        if self.process is not None:
            self.process.stop()
            return
        self.volume = self.volumes.currentNode()
        if self.volume is None:
            self.text.text = "Load a CT first"
            return
        settings = qt.QSettings()
        settings.setValue("Viscera/Command", self.command.text)
        settings.setValue("Viscera/Weights", self.weights.text)
        with slicer.util.tryWithErrorDisplay("The volume could not be written.", waitCursor=True):
            self.process = self.logic.prepare(self.volume, self.command.text.strip())
            weights = self.weights.text.strip()
            self.process.start(["--weights", weights] if weights else [])
            self.button.text = "Stop"
            self.timer.start(self.EVERY)

    def look(self) -> None:
        """Show how far it is, and take the result."""
        process = self.process
        process.poll()
        self.bar.value = round(100 * process.fraction)
        self.text.text = process.message
        if not process.ended:
            return
        self.timer.stop()
        self.process = None
        self.button.text = "Segment"
        with slicer.util.tryWithErrorDisplay("The segmentation could not be loaded."):
            if process.result:
                self.logic.load(process, self.volume)
                self.text.text = "\n".join(["Done", *process.warnings])
        process.clean()
