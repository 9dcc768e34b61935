#!/bin/sh
# Checks Muster against the GPUs of this machine, in one command: what the agent finds is what
# nvidia-smi finds, a job can use its own GPUs and no others, two jobs have none in common, their use
# is measured, and the GPUs come back. Nothing outside a temporary folder is changed; jobs run as the
# caller. As root device files are held by control groups; as another user that check is skipped.
#
#   packaging/gpu-acceptance.sh [MUSTER_BINARY]
#   packaging/gpu-acceptance.sh --self-test [MUSTER_BINARY]
#
# Without a binary: the `muster` of the PATH, else the one that was built beside this script, else one
# is built. --self-test runs the same checks without a GPU, against the double of NVIDIA's library
# (tests/fakes/nvml; MUSTER_NVML_DOUBLE names it where it is not beside the binary).
#
# Exit code: 0 all is well, 1 a check failed, 2 the checks cannot be made here.
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")/.." && pwd)
self_test=no
if [ "${1:-}" = --self-test ]; then self_test=yes; shift; fi

say() { printf '%s\n' "$*"; }
cannot() { say "gpu-acceptance: $*" >&2; exit 2; }

muster=${1:-}
if [ -z "$muster" ]; then
    for found in "$(command -v muster || true)" "$here/target/release/muster" "$here/target/debug/muster"; do
        if [ -n "$found" ] && [ -x "$found" ]; then muster=$found; break; fi
    done
fi
if [ -z "$muster" ]; then
    command -v cargo >/dev/null || cannot "there is no muster and no cargo to build it with"
    (cd "$here" && cargo build --release --bin muster) || cannot "muster does not build"
    muster=$here/target/release/muster
fi
muster=$(command -v "$muster") || cannot "there is no program $muster"
case $muster in /*) ;; *) muster=$PWD/$muster ;; esac

work=$(mktemp -d)
chmod 755 "$work"
failed=0
trap '"$muster" down --kill-jobs --dir "$work/c" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

check() { # NAME EXPECTED FOUND
    if [ "$2" = "$3" ]; then
        say "ok    $1"
    else
        say "FAIL  $1"; say "      expected: $2"; say "      found:    $3"; failed=1
    fi
}
between() { # NAME LEAST FOUND MOST UNIT
    if [ "${3:-0}" -ge "$2" ] && [ "${3:-0}" -le "$4" ]; then
        say "ok    $1: $3 $5"
    else
        say "FAIL  $1: ${3:-nothing} $5, and $2 to $4 would be plausible"; failed=1
    fi
}

files=/dev
library=
if [ "$self_test" = yes ]; then
    double=${MUSTER_NVML_DOUBLE:-}
    for found in "$(dirname "$muster")/libnvidia_ml.so" "$(dirname "$muster")/deps/libnvidia_ml.so"; do
        if [ -z "$double" ] && [ -f "$found" ]; then double=$found; fi
    done
    [ -n "$double" ] || cannot "the double of NVIDIA's library is not built: cargo test --no-run"
    mkdir "$work/nvml" "$work/dev" "$work/bin"
    cp "$double" "$work/nvml/libnvidia-ml.so"
    printf 'layout = "dgx-h100"\n[gpu.0]\nutilization = 90\nwatts = 400\n' > "$work/nvml/libnvidia-ml.toml"
    library=$work/nvml/libnvidia-ml.so
    files=$work/dev
    # Device files without a driver: ENXIO means that they may be opened.
    for minor in 0 1 2 3 4 5 6 7; do
        mknod -m 666 "$files/nvidia$minor" c 195 "$minor" 2>/dev/null || : > "$files/nvidia$minor"
    done
    # nvidia-smi of the same machine. Like the true one it shows a confined job its own GPUs alone.
    cat > "$work/bin/nvidia-smi" <<SMI
#!/bin/sh
minors="2 3 0 1 6 7 4 5"
at=0
[ "\$*" = "-q -x" ] && echo "<nvidia_smi_log><driver_version>570.86.15</driver_version>"
for minor in \$minors; do
    uuid=\$(printf 'GPU-%08x-1111-4222-8333-444455556666' \$at)
    bus=\$(printf '00000000:%02X:00.0' \$((0x18 + at * 8)))
    at=\$((at + 1))
    if (exec 3< "$files/nvidia\$minor") 2>&1 | grep -q 'not permitted'; then continue; fi
    case "\$*" in
        "-q -x") printf '<gpu id="%s">\n<product_name>NVIDIA H100 80GB HBM3</product_name>\n<mig_mode>\n<current_mig>Disabled</current_mig>\n</mig_mode>\n<uuid>%s</uuid>\n<minor_number>%s</minor_number>\n<pci>\n<pci_bus_id>%s</pci_bus_id>\n</pci>\n<fb_memory_usage>\n<total>81559 MiB</total>\n</fb_memory_usage>\n<bar1_memory_usage>\n<total>131072 MiB</total>\n</bar1_memory_usage>\n</gpu>\n' "\$bus" "\$uuid" "\$minor" "\$bus" ;;
        -L) echo "GPU \$((at - 1)): NVIDIA H100 80GB HBM3 (UUID: \$uuid)" ;;
    esac
done
SMI
    chmod 755 "$work/bin/nvidia-smi"
    PATH=$work/bin:$PATH
fi
command -v nvidia-smi >/dev/null || cannot "there is no nvidia-smi here"
nvidia-smi -q -x > "$work/smi.xml" || cannot "nvidia-smi does not answer"
count=$(grep -c '<gpu id=' "$work/smi.xml" || true)
[ "$count" -gt 0 ] || cannot "nvidia-smi shows no GPU"
say "$count GPUs, driver $(sed -n 's/.*<driver_version>\(.*\)<.driver_version>.*/\1/p' "$work/smi.xml"), $("$muster" --version)"

# A cluster of one node that takes the GPUs which its agent finds.
cpus=8
"$muster" up --dir "$work/c" --nodes 1 --cpus-per-node $cpus --mem-per-node 8G >/dev/null
"$muster" down --dir "$work/c" >/dev/null
if [ -n "$library" ]; then found="nvml_library = \"$library\""; else found=; fi
sed -i -e "s|^nvml_library = \"none\"|$found\ngpu_check_seconds = 1|" \
    -e "s/^cpus = $cpus\$/cpus = $cpus\ngres = \"auto\"/" "$work/c/muster.toml"
"$muster" up --dir "$work/c" >/dev/null
eval "$("$muster" env --dir "$work/c")"
mkdir "$work/jobs"
chmod 777 "$work/jobs"
cd "$work/jobs"

# What was found: uuid, device file, MiB, PCI address of each GPU. One that is cut into instances
# (MIG) is none by itself.
"$muster" agent --config "$work/c/muster.toml" --node n1 --print-inventory
"$muster" agent --config "$work/c/muster.toml" --node n1 --print-inventory --json > ../inventory.json
mine=$(awk -F'"' '
    /"gpus": \[/ { inside = 1 }
    inside && /"uuid":/ { uuid = $4 }
    inside && /"pci":/ { pci = $4 }
    inside && /"minor":/ { minor = $3; gsub(/[^0-9]/, "", minor) }
    inside && /"memory_mib":/ { memory = $3; gsub(/[^0-9]/, "", memory) }
    inside && /}/ && uuid != "" { if (uuid ~ /^GPU-/) print uuid, minor, memory, pci; uuid = "" }
    inside && /^  \]/ { inside = 0 }' ../inventory.json | sort)
theirs=$(awk -F'[<>]' '
    /<gpu id=/ { uuid = minor = memory = pci = ""; cut = 0 }
    /<uuid>/ && uuid == "" { uuid = $3 }
    /<minor_number>/ { minor = $3 }
    /<pci_bus_id>/ { pci = $3 }
    /<current_mig>Enabled/ { cut = 1 }
    /<fb_memory_usage>/ { fb = 1 }
    fb && /<total>/ { if (memory == "") memory = $3; sub(/ MiB/, "", memory); fb = 0 }
    /<\/gpu>/ && !cut { print uuid, minor, memory, pci }' ../smi.xml | sort)
check "uuid, device file, memory and PCI address of every GPU are nvidia-smi's" "$theirs" "$mine"
whole=$(printf '%s\n' "$theirs" | grep -c GPU- || true)
if [ "$whole" = 0 ]; then say "every GPU is cut into instances: the jobs below would have none"; exit "$failed"; fi
n=0
while ! "$muster" gpu -n 2>/dev/null | grep -q ' ok$'; do
    n=$((n + 1)); [ "$n" -lt 100 ] || { say "FAIL  no GPU comes into service: $("$muster" gpu)"; exit 1; }
    sleep 0.2
done

# A job: which device files it can open, which GPUs nvidia-smi and torch show it, and some work.
cat > job.sh <<JOB
#!/bin/sh
echo "gpus \$SLURM_JOB_GPUS cuda \$CUDA_VISIBLE_DEVICES"
for device in $files/nvidia[0-9]*; do
    said=\$( (exec 3< "\$device") 2>&1) || true
    case \$said in *"not permitted"*) echo "denied \$device" ;; *) echo "opened \$device" ;; esac
done
nvidia-smi -L | sed -n 's/.*UUID: \(GPU-[^)]*\).*/sees \1/p'
touch ready.\$SLURM_JOB_ID
n=0
while [ ! -e go ] && [ \$n -lt 600 ]; do sleep 0.1; n=\$((n + 1)); done
if [ $self_test = no ] && python3 -c 'import torch; torch.zeros(1, device="cuda")' 2>/dev/null; then
    python3 -c '
import time, torch
a = torch.randn(8192, 8192, device="cuda")
end = time.time() + 10
while time.time() < end:
    a = (a @ a).clamp(-1, 1)
    torch.cuda.synchronize()
print("torch", torch.cuda.device_count())'
else
    sleep 4
fi
JOB
ask() { sbatch --parsable -c1 --mem=1G -t 5 "$@" job.sh; }
until_ready() { # JOB
    n=0
    while [ ! -e "ready.$1" ]; do
        n=$((n + 1)); [ "$n" -lt 600 ] || { say "FAIL  job $1 does not start: $(squeue)"; exit 1; }
        sleep 0.1
    done
}
first=$(ask --gres=gpu:1 -o first.out)
until_ready "$first"
jobs=$first
if [ "$count" -gt 1 ]; then
    second=$(ask --gres=gpu:1 -o second.out)
    until_ready "$second"
    jobs="$first $second"
    units=$(sed -n 's/^gpus \([0-9,]*\) .*/\1/p' first.out second.out | sort | uniq -d)
    check "two jobs at once have no GPU in common" "" "$units"
else
    say "skip  two jobs at once: there is one GPU"
fi
touch go
for job in $jobs; do
    while squeue -h -j "$job" 2>/dev/null | grep -q .; do sleep 0.5; done
done
sed 's/^/      /' first.out
if scontrol -d show node n1 | grep 'Unenforced=' | grep -q device; then
    say "skip  devices are not held here:$(scontrol -d show node n1 | grep Unenforced)"
elif [ "$(id -u)" != 0 ]; then
    say "skip  devices are not held: an agent that is not root cannot"
else
    for out in first.out ${second:+second.out}; do
        check "the job of $out opens one device file" 1 "$(grep -c '^opened' $out)"
        check "and is refused the others" "$(($(find "$files" -maxdepth 1 -name 'nvidia[0-9]*' | wc -l) - 1))" \
            "$(grep -c '^denied' $out || true)"
        check "nvidia-smi shows it one GPU" 1 "$(grep -c '^sees' $out)"
        check "which counts from 0" 0 "$(sed -n 's/^gpus .* cuda //p' $out)"
    done
    if [ -n "${second:-}" ]; then
        check "not the same one" "" "$(sed -n 's/^sees //p' first.out second.out | sort | uniq -d)"
    fi
    unit=$(sed -n 's/^gpus \([0-9]*\) .*/\1/p' first.out)
    check "it is the one that it was given" \
        "$("$muster" gpu -n --uuid | awk -v unit="$unit" '$2 == unit { print $5 }')" \
        "$(sed -n 's/^sees //p' first.out)"
fi
if grep -q '^torch' first.out; then
    check "torch sees one GPU" "torch 1" "$(grep '^torch' first.out)"
    least=1
else
    say "skip  torch is not installed, or not used: the GPU does no work"
    if [ "$self_test" = yes ]; then least=1; else least=0; fi
fi

# What it used: no GPU draws more than 2 kW, and the job ran for a few seconds.
seconds=$(sacct -n -P -j "$first" -X -o ElapsedRaw | head -1)
between "its energy" 1 "$(sacct -n -P -j "$first.batch" -o ConsumedEnergyRaw | head -1)" \
    "$((2000 * (seconds + 2)))" J
use=$(sacct -n -P -j "$first.batch" -o TRESUsageInTot | head -1)
say "      $use"
between "its utilisation" "$least" \
    "$(printf '%s' "$use" | sed -n 's/.*gpuutil=\([0-9]*\).*/\1/p')" 100 "%"

# An operator takes a GPU out and brings it back.
scontrol update NodeName=n1 Gpu=0 State=DRAIN Reason="acceptance"
check "a GPU can be taken out" 1 "$("$muster" gpu --bad -n | grep -c acceptance)"
scontrol update NodeName=n1 Gpu=0 State=RESUME
check "every GPU is clean and free again" "" "$("$muster" gpu --bad -n)"
if [ "$failed" = 0 ]; then say "all is well"; fi
exit "$failed"
