#!/bin/sh
# Checks Muster against the GPUs of this machine, in one command: what the agent finds is what
# nvidia-smi finds, a job can use its own GPU and no other, its use is measured, and the GPU comes
# back. Nothing outside a temporary folder is changed; jobs run as the caller.
#
#   packaging/gpu-acceptance.sh [MUSTER_BINARY]
set -eu

muster=${1:-muster}
work=$(mktemp -d)
failed=0
trap '"$muster" down --kill-jobs --dir "$work/c" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

say() { printf '%s\n' "$*"; }
check() { # NAME EXPECTED FOUND
    if [ "$2" = "$3" ]; then
        say "ok    $1"
    else
        say "FAIL  $1"; say "      expected: $2"; say "      found:    $3"; failed=1
    fi
}

command -v nvidia-smi >/dev/null || { say "there is no nvidia-smi here"; exit 2; }
count=$(nvidia-smi --query-gpu=uuid --format=csv,noheader | wc -l)
say "$count GPUs, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)"

# A cluster of one node that takes the GPUs which its agent finds.
"$muster" up --dir "$work/c" --nodes 1 --cpus-per-node 4 --mem-per-node 4G >/dev/null
"$muster" down --dir "$work/c" >/dev/null
sed -i -e 's/^nvml_library = "none"/gpu_check_seconds = 1/' -e 's/^cpus = 4$/cpus = 4\ngres = "auto"/' \
    "$work/c/muster.toml"
"$muster" up --dir "$work/c" >/dev/null
eval "$("$muster" env --dir "$work/c")"
cd "$work"

"$muster" agent --config "$work/c/muster.toml" --node n1 --print-inventory
"$muster" gpu --json > gpus.json
mine=$(sed -n 's/.*"uuid": "\(GPU-[^"]*\)".*/\1/p' gpus.json | sort)
theirs=$(nvidia-smi --query-gpu=uuid --format=csv,noheader | sort)
check "every GPU is found" "$theirs" "$mine"
minors=$(sed -n 's/.*"minor": \([0-9]*\).*/\1/p' gpus.json | sort -n | tr '\n' ' ')
files=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' | sed 's/.*nvidia//' | sort -n | tr '\n' ' ')
check "each has its device file" "$files" "$minors"

# One GPU for a job: it opens its own device file and no other.
cat > job.sh <<'JOB'
#!/bin/sh
echo "cuda $CUDA_VISIBLE_DEVICES"
for device in /dev/nvidia[0-9]*; do
    if (exec 3<> "$device") 2>/dev/null; then echo "opened $device"; fi
done
nvidia-smi --query-gpu=uuid --format=csv,noheader | sed 's/^/sees /'
if python3 -c 'import torch' 2>/dev/null; then
    python3 -c '
import time, torch
a = torch.randn(8192, 8192, device="cuda")
end = time.time() + 8
while time.time() < end: a = (a @ a).clamp(-1, 1)
torch.cuda.synchronize()
print("torch", torch.cuda.device_count())'
else
    sleep 8
fi
JOB
job=$(sbatch --parsable --gres=gpu:1 -o job.out job.sh)
while squeue -h -j "$job" 2>/dev/null | grep -q .; do sleep 1; done
cat job.out
confined=$(scontrol -d show node n1 | grep -c 'Unenforced=.*device' || true)
if [ "$confined" = 0 ]; then
    check "the job opens one GPU" 1 "$(grep -c '^opened' job.out)"
    check "the job sees one GPU" 1 "$(grep -c '^sees' job.out)"
else
    say "skip  devices are not held for this user: $(scontrol -d show node n1 | grep Unenforced)"
fi
if grep -q '^torch' job.out; then check "torch sees one GPU" "torch 1" "$(grep '^torch' job.out)"; fi
energy=$(sacct -n -P -j "$job.batch" -o ConsumedEnergyRaw | head -1)
say "use: $(sacct -n -P -j "$job.batch" -o TRESUsageInTot | head -1)"
if [ "${energy:-0}" -gt 0 ]; then say "ok    energy was measured ($energy J)"; else say "FAIL  no energy"; failed=1; fi
check "the GPU is clean and free again" "" "$("$muster" gpu --bad -n)"
exit "$failed"
