#!/bin/sh
# FOLDER with LiteRT's ahead-of-time compiler and Qualcomm's host libraries, which the package
# onnxruntime-qnn brings: fetched by pip for whoever runs this, under Qualcomm's licence
# (Qualcomm_LICENSE.pdf in the package); they may not be passed on, in a bundle or otherwise.
set -eu
folder=$1
command -v cc >/dev/null || { echo "this environment needs a C compiler (cc)" >&2; exit 1; }
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check ai-edge-litert==2.3.0 \
  onnxruntime==1.31.1 onnxruntime-qnn==2.7.0 numpy==2.4.6
site=$("$folder/bin/python" -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")
# LiteRT looks for the libraries through a package that fetches another copy from Qualcomm. This
# one of the same name, of two lines, points to those that are here.
mkdir -p "$site/ai_edge_litert_sdk_qualcomm" "$site/qnn_stand_in"
cat > "$site/ai_edge_litert_sdk_qualcomm/__init__.py" <<'END'
"""Points LiteRT to Qualcomm's libraries of onnxruntime-qnn."""

import pathlib

import onnxruntime_qnn


def path_to_sdk_libs():
    return pathlib.Path(onnxruntime_qnn.__file__).parent
END
# The compiler plugin is linked to a library of low-power parts that it does not use here.
echo | cc -shared -xc - -o "$site/qnn_stand_in/libQnnLpai.so" -Wl,-soname,libQnnLpai.so
LD_LIBRARY_PATH="$site/onnxruntime_qnn:$site/onnxruntime_qnn.libs:$site/qnn_stand_in" \
  "$folder/bin/python" -c "import ai_edge_litert.aot.aot_compile, ctypes; ctypes.CDLL('libQnnHtp.so')"
