#!/bin/sh
# Checks the model of the crew with spin.
#   run.sh            every clean configuration (some ninety seconds on two cores that are free, less than 4 GB)
#   run.sh long       larger ones (some fifteen minutes)
#   run.sh mutants    deliberate faults: spin has to find each of them
#   run.sh trace "-DN=1 -DOUTBOX -DX_NO_FLUSH"    the shortest counter-example, step by step
# A line is: kind | what | -D flags. Kinds: safe (assertions, owners, no deadlock), ends (no run goes on for ever).
here=$(cd "$(dirname "$0")" && pwd)
jobs=${JOBS:-2}

clean='
safe | one thread, pipelined, hostile          | -DN=1 -DR=2 -DPIPE -DEARLY -DOUTBOX -DDEPEND
safe | one thread, sends refused, pipelined    | -DN=1 -DR=2 -DPIPE -DEARLY -DOUTBOX -DFULL -DOWED
safe | one thread, revoke, clients leave, stop | -DN=1 -DEARLY -DOUTBOX -DREVOKE -DGONE -DSTOPANY
safe | two threads                             | -DN=2 -DEARLY
safe | two threads, hostile, blocks            | -DN=2 -DEARLY -DOUTBOX -DDEPEND
safe | two threads, pipelined                  | -DN=2 -DC=1 -DR=2 -DPIPE -DEARLY -DOUTBOX
safe | two threads, stop at any moment         | -DN=2 -DDEPEND -DSTOPANY
safe | two threads, clients leave              | -DN=2 -DC=1 -DR=2 -DPIPE -DGONE -DEARLY -DOUTBOX
safe | two threads, sends refused              | -DN=2 -DC=1 -DFULL -DOUTBOX -DEARLY
safe | two threads, other blocking steps       | -DN=2 -DC=1 -DR=2 -DPIPE -DAWAYSTEP -DOUTBOX
safe | two threads, spurious wake-ups          | -DN=2 -DSPURIOUS -DDEPEND
safe | signalled threads stay on the stack     | -DN=2 -DNOPOP -DEARLY -DDEPEND
safe | push without a signal (it is not needed)| -DN=2 -DX_NO_SIGNAL_PUSH -DEARLY -DDEPEND
safe | deadlines                               | -DN=1 -DDEADLINE
safe | deadlines, exceptions, two threads      | -DN=2 -DC=1 -DDEADLINE -DRAISE -DEARLY
safe | deadlines, exceptions, close()          | -DN=1 -DC=1 -DDEADLINE -DRAISE -DENDED -DOUTBOX
safe | deadlines, close(), sends refused       | -DN=1 -DC=1 -DDEADLINE -DENDED -DOUTBOX -DFULL
safe | lost threads                            | -DN=1 -DDEADLINE -DREPLACE
safe | lost threads, exceptions, stop          | -DN=1 -DC=1 -DDEADLINE -DREPLACE -DRAISE -DSTOPANY
safe | queued for too long, clients leave      | -DN=1 -DQDROP -DDEPEND -DGONE
ends | deadlines, exceptions, close()          | -DN=1 -DC=1 -DDEADLINE -DRAISE -DENDED -DOUTBOX
ends | lost threads                            | -DN=1 -DC=1 -DDEADLINE -DREPLACE
ends | queued for too long                     | -DN=1 -DQDROP -DDEPEND
ends | one thread                              | -DN=1 -DR=2 -DEARLY -DOUTBOX
ends | one thread, sends refused               | -DN=1 -DFULL -DOUTBOX
ends | one thread, revoke, clients leave, stop | -DN=1 -DC=1 -DREVOKE -DGONE -DSTOPANY -DOUTBOX
ends | two threads                             | -DN=2
ends | two threads, other blocking steps       | -DN=2 -DC=1 -DAWAYSTEP'

long='
safe | three threads                           | -DN=3
safe | three threads, hostile                  | -DN=3 -DDEPEND
safe | three threads, push without a signal    | -DN=3 -DDEPEND -DX_NO_SIGNAL_PUSH
safe | two threads, pipelined                  | -DN=2 -DR=2 -DPIPE
safe | two threads, sends refused              | -DN=2 -DFULL -DOUTBOX
safe | two threads, revoke, blocks             | -DN=2 -DREVOKE -DOUTBOX
safe | revoke, clients leave, stop             | -DN=2 -DC=1 -DREVOKE -DGONE -DOUTBOX -DSTOPANY
safe | revoke, other blocking steps            | -DN=2 -DC=1 -DREVOKE -DAWAYSTEP -DOUTBOX
safe | two threads, two requests on each       | -DN=2 -DR=2 -DEARLY
safe | two threads, blocks, stop                | -DN=2 -DEARLY -DOUTBOX -DDEPEND -DSTOPANY
safe | two threads, revoke, early pass         | -DN=2 -DREVOKE -DEARLY
safe | two threads, clients leave, early pass  | -DN=2 -DGONE -DEARLY
safe | two threads, other blocking steps       | -DN=2 -DAWAYSTEP
safe | sends refused, clients leave            | -DN=2 -DC=1 -DFULL -DOUTBOX -DEARLY -DGONE
safe | two threads, revoke, early pass         | -DN=2 -DC=1 -DR=2 -DREVOKE -DOUTBOX -DEARLY
safe | two threads, pipelined, deadlines       | -DN=2 -DC=1 -DR=2 -DPIPE -DDEADLINE
safe | two threads, one is lost                | -DN=2 -DC=1 -DDEADLINE -DREPLACE
safe | lost threads, slots used again          | -DN=1 -DDEADLINE -DREPLACE -DBOTH_HOSTILE
safe | lost threads, stop                      | -DN=1 -DDEADLINE -DREPLACE -DSTOPANY
safe | lost threads, clients leave             | -DN=1 -DDEADLINE -DREPLACE -DGONE
safe | lost threads, the queue                 | -DN=1 -DDEADLINE -DREPLACE -DQDROP
safe | two threads, the queue                  | -DN=2 -DQDROP -DDEPEND
safe | three connections, the queue            | -DN=1 -DC=3 -DQDROP -DDEPEND
safe | deadlines, close(), refused, leave      | -DN=1 -DC=1 -DDEADLINE -DRAISE -DENDED -DOUTBOX -DFULL -DGONE
safe | deadlines, and main revokes             | -DN=1 -DC=1 -DDEADLINE -DREVOKE -DREPLACE -DSTOPANY
ends | two threads, sends refused              | -DN=2 -DFULL -DOUTBOX
ends | lost threads, exceptions, stop          | -DN=1 -DC=1 -DDEADLINE -DREPLACE -DRAISE -DSTOPANY'

mutants='
safe | sleep without a look after announcing   | -DN=2 -DDEPEND -DX_NO_LOOK_SLEEP
safe | ... without a look at stop              | -DN=1 -DSTOPANY -DX_NO_LOOK_STOP
safe | ... keeper: without the free threads    | -DN=2 -DX_NO_LOOK_FREE
safe | ... without the crew queue              | -DN=2 -DDEPEND -DX_NO_LOOK_QUEUE
safe | park without a look after saying so     | -DN=2 -DDEPEND -DX_NO_LOOK_PARK
safe | ... a look at away only, not the owner  | -DN=1 -DEARLY -DX_LOOK_PARK_AWAY_ONLY
safe | ... without a look at the end           | -DN=1 -DX_NO_LOOK_END
safe | leader looks at parked, then goes away  | -DN=2 -DDEPEND -DX_LOOK_BEFORE_AWAY
safe | early pass to the keeper, no signal     | -DN=2 -DEARLY -DX_NO_SIGNAL_PASS
safe | nobody writes the wake handle           | -DN=1 -DX_NO_WAKE
safe | look at sleeping, then push to done     | -DN=2 -DDEPEND -DX_WAKE_BEFORE_PUSH
safe | a parking thread does not wake          | -DN=2 -DX_NO_WAKE_WHEN_FREE
safe | GIL acquired, the queue is not looked at| -DN=2 -DDEPEND -DX_NO_SIGNAL_GIL
safe | ... looked at before clearing the word  | -DN=2 -DDEPEND -DX_LOOK_BEFORE_CLEAR
safe | the GIL waiter by load and store        | -DN=2 -DX_WAITER_STORE
safe | the lead taken back by a plain store    | -DN=2 -DX_STORE_ON_RETURN
safe | the taker does not flush                | -DN=1 -DOUTBOX -DX_NO_FLUSH
safe | no look at the lead word after QUIET    | -DN=1 -DOUTBOX -DX_NO_LOOK_QUIET
safe | deferred answers to pipelined requests  | -DN=1 -DR=2 -DPIPE -DOWED -DX_DEFER_ANSWERS
safe | ready with bytes in the outbox          | -DN=1 -DR=2 -DPIPE -DOWED -DFULL -DX_READY_WITH_OUTBOX
safe | freed at once, not at the end of a turn | -DN=1 -DR=2 -DGONE -DX_FREE_AT_ONCE
safe | closed while a thread has it            | -DN=1 -DGONE -DX_CLOSE_FOREIGN
safe | not watched again                       | -DN=1 -DR=2 -DPIPE -DX_NO_REWATCH
safe | revoke without the exchange number      | -DN=2 -DREVOKE -DX_REVOKE_ANY_NUMBER
safe | pushed to done before the slot is empty | -DN=1 -DREVOKE -DX_PUSH_BEFORE_IDLE
safe | a revoked thread pushes to done         | -DN=1 -DREVOKE -DX_REVOKED_PUSHES
safe | away with a connection not bound        | -DN=1 -DC=1 -DAWAYSTEP -DX_AWAY_UNBOUND
safe | a slot found busy is not made up for    | -DN=1 -DFULL -DOUTBOX -DX_NO_MAKE_UP
safe | ... nor looked at once more             | -DN=1 -DFULL -DOUTBOX -DX_NO_SECOND_LOOK
safe | the keeper does not arm the alarm       | -DN=1 -DC=1 -DDEADLINE -DX_NO_ARM_KEEPER
safe | a thread given the lead does not        | -DN=2 -DC=1 -DDEADLINE -DEARLY -DX_NO_ARM_THREAD
safe | a push to the crew queue does not       | -DN=1 -DDEADLINE -DX_NO_ARM_QUEUE
safe | disarmed after looks without the mutex  | -DN=1 -DDEADLINE -DX_DISARM_WITHOUT_MUTEX
safe | the number noted is not compared        | -DN=1 -DDEADLINE -DX_REVOKE_ANY_NUMBER
safe | a complete answer is reset              | -DN=1 -DC=1 -DDEADLINE -DENDED -DOUTBOX -DX_WHOLE_RESET
safe | complete, says the exchange before      | -DN=1 -DR=2 -DDEADLINE -DENDED -DOUTBOX -DX_WHOLE_STAYS
safe | lost by a plain store                   | -DN=1 -DC=1 -DDEADLINE -DREPLACE -DX_LOSE_BY_STORE
safe | back by a plain store                   | -DN=1 -DDEADLINE -DREPLACE -DX_BACK_BY_STORE
safe | replaced, but not marked as lost        | -DN=1 -DDEADLINE -DREPLACE -DX_REPLACE_REVOKED
safe | stop waits for lost threads             | -DN=1 -DDEADLINE -DREPLACE -DX_STOP_WAITS_FOR_LOST
safe | dropped from the queue without the mutex| -DN=1 -DQDROP -DDEPEND -DX_DROP_WITHOUT_MUTEX
safe | raised without a look at the mark       | -DN=1 -DC=1 -DDEADLINE -DRAISE -DX_RAISE_UNCHECKED
safe | the GIL let go between look and raise   | -DN=1 -DC=1 -DDEADLINE -DRAISE -DX_RAISE_IN_TWO_STEPS
safe | mark cleared, exception left pending    | -DN=1 -DC=1 -DDEADLINE -DRAISE -DX_CLEAR_MARK_ONLY
safe | mark cleared after close()              | -DN=1 -DC=1 -DDEADLINE -DRAISE -DX_MARK_IN_CLOSE
safe | marked after the look at the slot       | -DN=1 -DC=1 -DDEADLINE -DRAISE -DX_MARK_LATE
ends | writable event of another is kept       | -DN=1 -DFULL -DOUTBOX -DX_KEEP_WRITE_WATCH'

for tool in spin gcc; do
    command -v $tool >/dev/null 2>&1 || { echo "model: $tool is not installed (the packages are called spin and gcc)" >&2; exit 2; }
done

build() {       # kind, flags; leaves ./pan
    cp "$here"/*.pml . && spin -a $2 crew.pml >spin.log 2>&1 || { cat spin.log; return 1; }
    case $1 in
    safe) gcc -w -O2 -DSAFETY -DCOLLAPSE -DMEMLIM="${MEMORY:-1900}" -o pan pan.c ;;
    ends) gcc -w -O2 -DNP -DNOFAIR -DCOLLAPSE -DMEMLIM="${MEMORY:-1900}" -o pan pan.c ;;
    short) gcc -w -O2 -DSAFETY -DBFS -DCOLLAPSE -DMEMLIM="${MEMORY:-3800}" -o pan pan.c ;;
    esac
}

case ${1:-clean} in
one)            # internal: one line of a table
    kind=$(echo "$3" | cut -d'|' -f1 | tr -d ' ')
    name=$(echo "$3" | cut -d'|' -f2)
    flags=$(echo "$3" | cut -d'|' -f3)
    dir=$(mktemp -d) && cd "$dir" || exit 2
    trap 'rm -rf "$dir"' EXIT
    build "$kind" "$flags" || { echo "FAILED $kind$name cannot be built:$flags"; exit 1; }
    start=$(date +%s)
    if [ "$kind" = ends ]; then ./pan -l -m1000000 >out 2>&1; else ./pan -m1000000 >out 2>&1; fi
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' out)
    states=$(sed -n 's/ *\([0-9.e+]*\) states, stored.*/\1/p' out)
    why=$(sed -n 's/^pan:1: //p' out | cut -c1-48)
    grep -q "Search not completed\|max search depth too small\|out of memory\|reached -DMEMLIM" out && [ "$errors" = 0 ] && errors=incomplete
    if [ "$2" = mutants ]; then
        case $errors in
        0 | '' | incomplete) verdict="FAILED: not found" ;;
        *) verdict="found: $why" ;;
        esac
    else
        case $errors in
        0) verdict=ok ;;
        '' | incomplete) verdict="FAILED: not finished" ;;
        *) verdict="FAILED: $why" ;;
        esac
    fi
    printf '%s%s%10s states %3ds  %s  (%s)\n' "$kind" "$name" "${states:-0}" $(($(date +%s) - start)) "$verdict" "$(echo $flags)"
    case $verdict in FAILED*) exit 1 ;; esac
    ;;
trace)
    dir=$(mktemp -d) && cd "$dir" || exit 2
    trap 'rm -rf "$dir"' EXIT
    build short "$2" || exit 1
    ./pan -m1000000 | grep "pan:1\|errors:"
    [ -f crew.pml.trail ] || exit 0
    spin -t -p $2 crew.pml | grep -v "goto)\]\|sub-sequence\|\[IF\]\|\[else\]" | sed 's/creates proc.*//; s/crew.pml:/line /' | cut -c1-150
    exit 1
    ;;
clean | long | mutants)
    table=$(eval "echo \"\$${1:-clean}\"" | grep '|')
    if echo "$table" | tr '\n' '\0' | xargs -0 -P "$jobs" -I{} "$0" one "${1:-clean}" "{}"
    then echo "model: all $(echo "$table" | wc -l) as expected"
    else echo "model: FAILED" >&2; exit 1
    fi
    ;;
*) sed -n '2,7s/^# *//p' "$0"; exit 2 ;;
esac
