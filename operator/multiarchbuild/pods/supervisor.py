"""What runs buildkitd where a RUN has no process namespace of its own, and ends what a RUN leaves behind.

Rootless BuildKit has to be run with `--oci-worker-no-process-sandbox`: the processes of every RUN are in the process
namespace of the container. One that outlives its RUN (a database for tests, a build server) goes on, and while it holds
the standard output of the RUN, BuildKit waits for it until the whole build times out. With a namespace of its own it
would die with the first process of the RUN; this script does the same.

As process 1 it is the parent of whoever has lost their own. `runc run` adopts the orphans of its container as long as
it runs (PR_SET_CHILD_SUBREAPER). So there are two kinds of processes that a RUN has left behind:

* Those whose parent is process 1: their runc has ended. The daemons of buildkitd itself, such as fuse-overlayfs, share
  its mount namespace; a process of a RUN has one of its own, in which it sees the image that is built.
* Those below a `runc run` that still copies their output, although the first process of its container has ended. Runc
  keeps the number of that process in `$XDG_RUNTIME_DIR/runc/ID/state.json`.

Beside a builder that stays, the step asks after each build (MAB_SWEEP, a folder both see) that all go which are of
another mount namespace than this script and buildkitd: no RUN is going on then.
"""

SUPERVISE = """\
"$@" &
daemon=$!
trap 'kill -TERM "$daemon" 2>/dev/null' TERM INT

own() {  # whether process $1 is in the mount namespace of this script, or of buildkitd
  [ "/proc/$1/ns/mnt" -ef /proc/1/ns/mnt ] && return 0
  for child in $(children "$daemon"); do
    [ "/proc/$1/ns/mnt" -ef "/proc/$child/ns/mnt" ] && return 0
  done
  return 1
}

children() {
  for stat in /proc/[0-9]*/stat; do
    { read -r line < "$stat"; } 2>/dev/null || continue
    pid=${line%% *} rest=${line##*) }
    rest=${rest#* }
    [ "${rest%% *}" = "$1" ] && echo "$pid"
  done
}

end() {  # a process and all below it: it is stopped first, so that it starts no others meanwhile
  kill -STOP "$1" 2>/dev/null || return 0
  for each in $(children "$1"); do end "$each"; done
  kill -KILL "$1" 2>/dev/null
}

left() {  # ends process $1
  command=$(tr '\\0' ' ' < "/proc/$1/cmdline" | cut -c 1-200)
  echo "ending process $1, which a RUN left behind: $command" >&2
  end "$1"
}

ended() {  # whether process $1 is gone, or only waits for its parent to notice that it is
  { read -r line < "/proc/$1/stat"; } 2>/dev/null || return 0
  case ${line##*) } in Z*) return 0 ;; esac
  return 1
}

runc() {  # the process that runs container $1
  for cmdline in /proc/[0-9]*/cmdline; do
    case " $(tr '\\0' ' ' < "$cmdline" 2>/dev/null) " in
      *runc*" run --bundle "*" $1 "*) pid=${cmdline#/proc/} && echo "${pid%/cmdline}" && return ;;
    esac
  done
}

sweep() {
  for state in "${XDG_RUNTIME_DIR:-/run}"/runc/*/state.json; do
    first=$(sed -n 's/.*"init_process_pid":\\([0-9]*\\).*/\\1/p' "$state" 2>/dev/null)
    if [ "${first:-0}" -gt 1 ] && ended "$first"; then
      id=${state%/state.json}
      for orphan in $(children "$(runc "${id##*/}")"); do left "$orphan"; done
    fi
  done
  for orphan in $(children 1); do
    [ "$orphan" = "$daemon" ] || [ ! -e "/proc/$orphan/ns/mnt" ] || own "$orphan" || left "$orphan"
  done
}

strangers() {  # every process but those of this script and of buildkitd
  for process in /proc/[0-9]*; do
    [ ! -e "$process/ns/mnt" ] || own "${process#/proc/}" || echo "${process#/proc/}"
  done
}

purge() {  # ends all that RUNs have left, when no RUN goes on; returns whether nothing is left
  for try in 1 2 3 4 5 6 7 8 9; do
    found=$(strangers)
    [ -z "$found" ] && return 0
    for stranger in $found; do left "$stranger"; done
  done
  return 1
}

serve() {  # purges for whoever writes a line into the pipe, and says when it has
  rm -f "$MAB_SWEEP/sweep" "$MAB_SWEEP/swept"
  mkfifo "$MAB_SWEEP/sweep"
  while :; do
    read -r line < "$MAB_SWEEP/sweep" || continue
    purge && echo "$line" > "$MAB_SWEEP/sweeping" && mv "$MAB_SWEEP/sweeping" "$MAB_SWEEP/swept"
  done
}

[ -z "$MAB_SWEEP" ] || serve &
while sleep 1; do sweep; done &
wait "$daemon"
code=$?
while kill -0 "$daemon" 2>/dev/null; do wait "$daemon"; code=$?; done
exit "$code"
"""
"""Run by /bin/sh as process 1, its arguments the program that it runs: it ends with the program, and as it did."""
