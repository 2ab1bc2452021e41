"""What is said to Globus GRAM5 and what it says: RSL, the script around a grid job, states and error codes.

Sources: "GT 6.0 GRAM5 User's Guide" and "GRAM5 RSL Specification" (Grid Community Toolkit), `globusrun(1)`, and
`Globus::GRAM::Error` for the codes, with which `globusrun` ends.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

from iceprod_p2p.grids.base import GridRequest, GridState, Held, Queued, Running
from iceprod_p2p.grids.command import CommandResult

SCRIPT_NAME: Final = "gram.sh"
INNER_NAME: Final = "grid.sh"
RSL_NAME: Final = "gram.rsl"
OVER: Final = "DONE"  # Or unknown, or its job manager cannot be reached: `globusrun` tells no difference.
GAVE_UP: Final = "FAILED"
STATES: Final[dict[str, GridState]] = {
    "UNSUBMITTED": Queued("not yet with the batch system"),
    "STAGE_IN": Queued("files are staged in"),
    "PENDING": Queued(),
    "SUSPENDED": Held("suspended"),
    "ACTIVE": Running(),
    "STAGE_OUT": Running(),
}
CONTACT: Final = re.compile(r"https://[A-Za-z0-9_.:\[\]-]+/[0-9]+/[0-9]+/")

# GLOBUS_GRAM_PROTOCOL_ERROR_*: nobody took the request, and nobody will as things are.
DOWN_CODES: Final = frozenset(
    {
        7,  # AUTHORIZATION: of the gatekeeper or of us.
        12,  # CONNECTION_FAILED
        29,  # USER_PROXY_NOT_FOUND
        30,  # OPENING_USER_PROXY
        93,  # GATEKEEPER: no such service.
        131,  # USER_PROXY_EXPIRED
        254,  # No credential that could be used: globusrun did not come to ask anybody.
    }
)
# The job manager has read this request and does not want it.
REFUSED_CODES: Final = frozenset(
    {1, 3, 4, 5, 6, 11, 13, 14, 19, 26, *range(37, 61), 86, 91, 92, 109, 111, 112, 255}
)
GONE_CODES: Final = frozenset({79, 156})  # CONTACTING_JOB_MANAGER, JOB_CONTACT_NOT_FOUND.

# Of many starts of one grid job (a batch system that starts it again, a second submission under its name) the first
# link wins; the node gives it up by a link of the same name.  What a link names is whole when the link is there.
# Signals reach the executable by the system's own way (GRAM's go to the whole process group): this shell has to
# outlive it.  The pilot takes a second TERM as an order to end at once, so `stop` is passed on once.
SCRIPT: Final = """\
#!/bin/sh
place={place}
claim="$place/claim.$$.$(uname -n)"
printf 'started\\n%s\\n%s\\n%s\\n' "$GLOBUS_GRAM_JOB_CONTACT" "$(uname -n)" "$(date +%s)" >"$claim" || exit 75
ln "$claim" "$place/start" 2>/dev/null
[ "$claim" -ef "$place/start" ] || exit 75
trap : TERM INT HUP USR1 USR2
/bin/sh {script} &
child=$!
(
  nap= told=
  trap '[ -z "$nap" ] || kill $nap; exit' TERM
  while kill -0 $$; do
    touch "$place/alive"
    [ -z "$told" ] && [ -e "$place/stop" ] && told=yes && kill -TERM $child
    sleep {beat_s:g} & nap=$!
    wait $nap
    nap=
  done
) >/dev/null 2>&1 </dev/null &
watch=$!
while :; do
  wait $child
  code=$?
  kill -0 $child 2>/dev/null || break
done
# A signal in the moment of its end may have given its own number instead of the exit code: ask again.
wait $child 2>/dev/null
again=$?
[ $again -eq 127 ] || code=$again
kill $watch 2>/dev/null
printf '%s\\n%s\\n' "$code" "$(date +%s)" >"$place/end.new" && mv "$place/end.new" "$place/end"
exit $code
"""


def script(place: Path, *, beat_s: float) -> str:
    """Return what GRAM starts: it takes the grid job for itself, tells that it lives, and writes its end down."""
    inner = shlex.quote(str(place / INNER_NAME))
    return SCRIPT.format(place=shlex.quote(str(place)), script=inner, beat_s=beat_s)


def quoted(value: str) -> str:
    """Return a value of RSL; within quotes only the quote itself means something."""
    return '"' + value.replace('"', '""') + '"'


def rsl(request: GridRequest, place: Path) -> str:
    """Return the job description; limits that the request leaves open are the batch system's."""
    pairs = [
        ("executable", quoted("/bin/sh")),
        ("arguments", quoted(str(place / SCRIPT_NAME))),
        ("directory", quoted(request.work_directory)),
        ("stdout", quoted(request.stdout_path)),
        ("stderr", quoted(request.stderr_path)),
        ("jobType", "single"),
    ]
    if request.cores > 1:
        pairs += [("count", str(request.cores)), ("hostCount", "1")]
    if request.walltime_s:
        pairs.append(("maxWallTime", str(-(-request.walltime_s // 60))))
    if request.memory_mib:
        pairs.append(("maxMemory", str(request.memory_mib)))
    if request.queue:
        pairs.append(("queue", quoted(request.queue)))
    return "&" + "".join(f"({name}={value})" for name, value in pairs) + "".join(request.extra_lines) + "\n"


def submitted_contact(output: str) -> str:
    """Return the job contact that `globusrun -F` printed, or nothing."""
    lines = [line.strip() for line in output.splitlines()]
    return next((line for line in lines if CONTACT.fullmatch(line)), "")


def is_contact(text: str) -> bool:
    """Return whether `text` may name a job to `globusrun`."""
    return CONTACT.fullmatch(text) is not None


def refusal(result: CommandResult) -> str:
    """Return what `globusrun` complained about, on one line, without its usage."""
    lines = [line.strip() for line in (result.stderr + result.stdout).splitlines()]
    said = [
        line for line in lines if line and not line.startswith(("Syntax", "Use -help", "globus_gram_client_"))
    ]
    return " / ".join(said)[:500] or f"globusrun ended with {result.exit_code}"
