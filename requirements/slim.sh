#!/usr/bin/env bash
# Remove from a folder of installed packages what a run never opens: `requirements/slim.sh SITE_PACKAGES`.
# For images only; needs binutils. What is left still reads ONNX and runs it: .ci/container does, with every engine.
set -euo pipefail
site=$1
shopt -s nullglob globstar

# Test suites and their data (nibabel's alone are 5 MB), and stubs that only type checkers read.
rm -rf "$site"/**/tests/ "$site"/**/*.pyi "$site"/pydicom/data/{test_files,charset_files}

# For building extensions against NumPy: headers, static libraries, the Fortran wrapper generator.
rm -rf "$site"/numpy/{f2py,distutils,_core/include,_core/lib/*.a,random/lib/*.a}

# Symbols for debuggers: 29 MB in these three.
strip --strip-unneeded "$site"/cc3d/fastcc3d.*.so "$site"/_libjpeg.*.so "$site"/_openjpeg.*.so

# OpenVINO keeps its CPU plugin and its readers of ONNX and IR. Out: other devices' plugins with their
# kernels (61 MB), the plugins that share work between devices, readers of other frameworks' models
# (which would be opened at every start, to ask them), C and C++ interfaces.
rm -f "$site"/openvino/libs/libopenvino_{intel_gpu,intel_npu,auto,auto_batch,hetero}_plugin.so \
  "$site"/openvino/libs/libopenvino_{tensorflow,tensorflow_lite,pytorch,paddle,jax,gguf}_frontend.so* \
  "$site"/openvino/libs/{cache.json,libopenvino_c.so*,libtbbmalloc_proxy.so*,tbb.pc}
rm -rf "$site"/openvino/{cmake,include,torch} "$site"/openvino/frontend/{jax,paddle,pytorch,tensorflow}

# OpenVINO's model converter costs a tenth of a second at import, and with it comes its reporting of use
# over the network. OpenVINO imports both only where they are installed.
rm -rf "$site"/openvino/tools "$site"/openvino_telemetry*

# highdicom asks Pillow for colours only, and brings a second decoder of JPEG-LS; its lists of attributes are indented.
rm -rf "$site"/PIL/_{avif,imagingft,webp}.*.so "$site"/pillow.libs/lib{avif,freetype,harfbuzz}-*.so* \
  "$site"/jpeg_ls "$site"/_CharLS.*.so
for list in "$site"/highdicom/_standard/*.json; do
  python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); json.dump(d, open(sys.argv[1], "w"), separators=(",", ":"))' "$list"
done

# cuFFT, 0.2 GB, is opened by ONNX Runtime for Fourier transforms, which no network here has.
rm -f "$site"/nvidia/cu13/lib/libcufft*

# ONNX Runtime's Python module holds the whole library: the second copy (34 MB) is for C programs.
# Its tools for converting models are the only users of protobuf and flatbuffers.
rm -rf "$site"/onnxruntime/capi/libonnxruntime.so.* \
  "$site"/onnxruntime/{backend,datasets,quantization,tools,transformers} \
  "$site"/google "$site"/protobuf-* "$site"/flatbuffers* "${site:?}"/bin
