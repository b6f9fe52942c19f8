#!/bin/bash
# Used inside the builder stages: `install.sh FOLDER [options of pip]` installs all of /wheels/*.whl into FOLDER and moves
# it below /layer, the same way every time: byte code without time stamps, one fixed hash seed, every file of one age.
set -euo pipefail
folder=$1
shift
export PYTHONHASHSEED=0
shopt -s nullglob
wheels=(/wheels/*.whl)

# pip runs out of its own wheel, so that nothing of it stays. A row of the table may have no package of the checkout.
if [ ${#wheels[@]} -gt 0 ]; then
    /opt/venv/bin/python /wheels/installer/pip.whl/pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
        --disable-pip-version-check --root-user-action ignore "$@" "${wheels[@]}"
fi
# What only builds and tests of torch itself need: 190 MB. Its one program that is used at run time stays.
for torch in /opt/venv/lib/python3.*/site-packages/torch; do
    rm -rf "$torch/test" "$torch/include" "$torch/share"
    find "$torch/bin" -type f ! -name torch_shm_manager -delete
done
# quiet=2: packages hold files meant for other Pythons, which cannot be compiled; they stay as they are.
# -S, force: what a .pth file imports when Python starts would keep byte code with a time stamp.
/opt/venv/bin/python -B -S - "$folder" <<'PYTHON'
import compileall, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
compileall.compile_dir(sys.argv[1], maxlevels=50, quiet=2, force=True, invalidation_mode=mode)
PYTHON
mkdir -p "/layer$(dirname "$folder")"
mv "$folder" "/layer$folder"
find /layer -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
