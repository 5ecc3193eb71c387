#!/usr/bin/env bash
# slurm_down.sh           Ends what slurm_up.sh started in $R, the newest first, and the steps that outlived their slurmd.
# slurm_down.sh --left    The same in every state folder of this user that the tests make, if who started it is gone.
# A pid counts only with the start time that was noted beside it.
set -uo pipefail
R=${R:-${TMPDIR:-/var/tmp}/orcolat-slurm}

born() { # PID: when it began, in clock ticks since the machine did; nothing if it has ended
  local rest
  read -ra rest < <(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) && [ "${rest[0]}" != Z ] && echo "${rest[19]}"
}
alive() { [ -n "$2" ] && [ "$(born "$1")" = "$2" ]; } # PID BORN

down() { # FOLDER
  local R=$1 name pid start comm
  [ -f "$R/pids" ] || return 0
  if [ -L "$R" ] || [ ! -O "$R" ]; then
    echo "slurm_down.sh: $R is not a folder of your own: what its pids name is left alone" >&2
    return 2
  fi
  export SLURM_CONF=$R/slurm.conf
  timeout 10 scancel -u "$(id -un)" >/dev/null 2>&1
  for _ in {1..100}; do [ -z "$(timeout 3 squeue -h 2>/dev/null)" ] && break; sleep .1; done
  while read -r name pid start; do
    alive "$pid" "$start" || continue
    kill -TERM "$pid"
    for _ in {1..100}; do alive "$pid" "$start" || break; sleep .1; done
    alive "$pid" "$start" && { echo "$name $pid needed SIGKILL"; kill -KILL "$pid"; }
  done < <(tac "$R/pids")
  : >"$R/pids"
  for comm in /proc/[0-9]*/comm; do
    [ "$(cat "$comm" 2>/dev/null)" = slurmstepd ] || continue
    pid=${comm#/proc/} pid=${pid%/comm}
    grep -zqxF "SLURM_CONF=$R/slurm.conf" "/proc/$pid/environ" 2>/dev/null && kill -KILL "$pid"
  done
  return 0
}

code=0
if [ "${1:-}" = --left ]; then
  for folder in /var/tmp/oslurm-* "${TMPDIR:-/var/tmp}/orcolat-slurm" "${STATE:-/var/tmp/orcolat-containers}/slurm"; do
    if [ ! -s "$folder/pids" ] || [ ! -s "$folder/owner" ] || [ ! -O "$folder" ]; then continue; fi
    read -r pid start <"$folder/owner"
    alive "$pid" "$start" && continue
    echo "slurm_down.sh: $folder was left running"
    down "$folder" || code=2
    case $folder in /var/tmp/oslurm-*) rm -rf "$folder" ;; esac
  done
else
  down "$R" || code=2
fi
# Segments of killed ranks, which nobody maps any more.
for segment in /dev/shm/mpich_shm_*; do
  [ -O "$segment" ] && ! grep -qsF "$segment" /proc/[0-9]*/maps && rm -f "$segment"
done
exit "$code"
