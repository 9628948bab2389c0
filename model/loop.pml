/*
 * The loop that the crew shares: the words, the connections, the slots, and what a leader does in a turn.
 * Included by crew.pml, which says how the whole is built.
 */
#ifndef N
#define N 2
#endif
#ifndef C
#define C 2
#endif
#ifndef R
#define R 1
#endif
#ifdef REPLACE
#define S (N + 1)                 /* slots: one is spare */
#else
#define S N
#endif
#if defined(DEADLINE) || defined(QDROP)
#define ALARM
#endif
#if defined(DEADLINE) || defined(REVOKE)
#define NUMBERED
#endif
#define K S                       /* the keeper's number */
#define WHEN(cond, what) if :: cond -> what :: else fi
#define BIT(x) (1 << (x))
#define HAS(set, x) (((set) >> (x)) & 1)

/* ---- The lead word. No sequence number: it is there for the tick ("the same word"), and leaving it out lets the
 *      keeper's compare-and-swap succeed more often than in the real code. */
byte l_own = K;                   /* the keeper leads first */
bit l_away;
#define LEADS(p) assert(l_own == (p) && !l_away)

/* ---- Words anybody may read: seq_cst atomics */
bit parked;                       /* the keeper says that it sleeps */
bit sleeping;                     /* the leader says that it sleeps in the poller */
bit wakeh;                        /* the wake handle */
bit stop;
byte gw;                          /* who waits for the GIL to begin an exchange: 0 or i + 1 */
byte done;                        /* set of connections that came back; lock-free stack */

/* ---- Under the mutex M */
bit M;
#define LOCK   atomic { M == 0 -> M = 1 }
#define UNLOCK M = 0
byte queue;                       /* the crew queue; order left out: any of them may be next */
byte freem;                       /* parked threads; the order is left out: any of them may be the top */
bit waiting[S + 1];               /* in a cond wait; a signal makes it 0, and is lost when it is 0 already */
bit end;                          /* threads are to end */

/* ---- Of the loop: only the leader touches these */
byte ready;                       /* local ready list */
bit draining;
byte watched;

/* ---- Connections */
#define NEW 0                     /* not accepted */
#define LOOP 1
#define READY 2                   /* in ready */
#define QUEUED 3                  /* in queue */
#define THREAD 4                  /* bound to a slot */
#define DONE 5
#define CLOSING 6                 /* to be closed and freed at the end of the turn */
#define FREED 7
byte own[C];
byte buf[C];                      /* complete requests in the buffer */
byte ob;                          /* set: bytes wait in the outbox */
byte gone;                        /* set: noted that the peer left */
byte clogged;                     /* set: the kernel refuses to send now */
byte wwatch;                      /* set: watched for being writable; of the loop */

/* ---- Slots: one word each (state, number of the exchange, connection) */
#define IDLE 0                    /* no exchange: QUIET with the next number */
#define QUIET 1
#define BUSY 2
#define REVOKED 3
#define LOST 4                    /* given up: another thread does its work, and it ends when it comes back */
#define HELD 5                    /* BUSY, but without an exchange: borrowed by a leader that comes too late */
byte st[S];
byte sc[S];
#ifdef NUMBERED
byte sx[S];
#endif
#ifdef DEADLINE
byte noted[S];                    /* the leader's: number of the exchange that it saw running */
#define NUMBER(i) sx[i]++; over[i] = ON_TIME; CLEAR_WHOLE(i)
#elif defined(REVOKE)
#define NUMBER(i) sx[i]++
#else
#define NUMBER(i) skip
#endif
#define BOUND(i, c) ((st[i] == QUIET || st[i] == BUSY) && sc[i] == (c))
#ifdef X_REVOKED_DOES_NOT_RUN
#define RUNS(i) (st[i] == QUIET || st[i] == BUSY)
#else
#define RUNS(i) (st[i] == QUIET || st[i] == BUSY || st[i] == REVOKED)
#endif
#ifdef ENDED
byte whole;                       /* set of slots: the answer is complete, only close() still runs */
#ifdef X_WHOLE_STAYS
#define CLEAR_WHOLE(i) entire = entire & ~BIT(i)
#else
#define CLEAR_WHOLE(i) whole = whole & ~BIT(i); entire = entire & ~BIT(i)
#endif
byte entire;                      /* the same, for the properties */
byte closes;                      /* set of connections: to be closed when the outbox is empty */
#else
#define CLEAR_WHOLE(i) skip
#endif
#ifdef ALARM
bit armed;                        /* of the loop: the leader will look again. Time: it may do so at once */
#define ARM armed = 1
#else
#define ARM skip
#endif
#ifdef RAISE
byte mark[S];                     /* under the GIL: the exchange that is in the application's call, or 0 */
byte told[S];                     /* for main: the exchange that was revoked */
byte pend;                        /* under the GIL: set of threads with an exception that was not delivered yet */
#endif
#ifdef REPLACE
byte repl;                        /* for main: threads to be replaced */
byte work;                        /* set of slots whose thread was started and has not ended */
#endif
byte want;                        /* set of connections whose outbox the kernel refused, to be attended: in `done` */
byte missed;                      /* set of slots that the leader found BUSY, and so stopped watching their socket */

/* ---- The GIL, 0 or i + 1 */
byte gil;

/* ---- The world outside */
byte inn[C];                      /* requests in the kernel's buffer */
byte sent[C];                     /* requests the client has sent */
byte hup;                         /* set: the client left */
bit revreq; byte rv_i, rv_x;      /* main's request to revoke exchange rv_x of thread rv_i */

/* ---- Ghosts: for the properties only */
byte answered[C];
byte got[C];                      /* requests received by a leader */
byte ngw;                         /* threads that wait for the GIL to begin an exchange */
byte ended;
#ifdef SPURIOUS
byte spur;                        /* set: had its one spurious wake-up */
#endif
#ifdef AWAYSTEP
byte stepped;                     /* set: had its one blocking step */
#endif
#ifdef REVOKE
bit rv_done;
#endif
#ifdef DEADLINE
byte over[S];                     /* its time is over: ON_TIME, or the stage of it */
#define ON_TIME 0
#define LATE 1                    /* the deadline of the exchange has passed */
#define LATE_IN_CLOSE 2           /* ... after its answer was complete */
#define LATE_BACK 3               /* it was revoked, and has not come back for a while */
#endif
#ifdef QDROP
byte late;                        /* set of connections that have been queued for too long */
byte nq;                          /* the count of the queue */
#define COUNT(n) nq = nq + (n); assert(nq == HAS(queue, 0) + HAS(queue, 1) + HAS(queue, 2))
#else
#define COUNT(n) skip
#endif
#ifdef REPLACE
#define IS_ABLE(i) (HAS(work, i) && st[i] != LOST)
#if N == 1
#define ABLE (IS_ABLE(0) + IS_ABLE(1))
#else
#define ABLE (IS_ABLE(0) + IS_ABLE(1) + IS_ABLE(2))
#endif
byte forever;                     /* threads that will never come back */
byte started = N;
#endif

#define EV(c) (((own[c] == NEW && sent[c] && !draining) || (HAS(watched, c) && (inn[c] || HAS(hup, c))) || \
                (HAS(wwatch, c) && !HAS(clogged, c))) << (c))
#if C == 1
#define EVENTS EV(0)
#define GONEALL (own[0] == NEW || own[0] == FREED)
#elif C == 2
#define EVENTS (EV(0) | EV(1))
#define GONEALL ((own[0] == NEW || own[0] == FREED) && (own[1] == NEW || own[1] == FREED))
#else
#define EVENTS (EV(0) | EV(1) | EV(2))
#define GONEALL ((own[0] == NEW || own[0] == FREED) && (own[1] == NEW || own[1] == FREED) && (own[2] == NEW || own[2] == FREED))
#endif

/* Every container agrees with the owner. */
#define ONE_OWNER(c) assert(HAS(ready, c) == (own[c] == READY) && HAS(queue, c) == (own[c] == QUEUED) && \
                            HAS(done, c) == (own[c] == DONE))

inline signal(t) { waiting[t] = 0 }

inline signal_all() {
    signal(0); signal(K);
#if S > 1
    signal(1);
#endif
#if S > 2
    signal(2)
#endif
}

/* Under M: take a thread off the free stack. */
inline pop(t) {
    if
    :: HAS(freem, 0) -> t = 0
#if S > 1
    :: HAS(freem, 1) -> t = 1
#endif
#if S > 2
    :: HAS(freem, 2) -> t = 2
#endif
    fi;
    freem = freem & ~BIT(t)
}

/* Under M: signal one free thread. NOPOP: it stays on the stack until it has woken up. */
inline signal_free(t) {
    pop(t); signal(t);
#ifdef NOPOP
    freem = freem | BIT(t);
#endif
    t = 0
}

/* Any member of a set of connections. */
inline pick(set, c) {
    if
    :: HAS((set), 0) -> c = 0
#if C > 1
    :: HAS((set), 1) -> c = 1
#endif
#if C > 2
    :: HAS((set), 2) -> c = 2
#endif
    fi
}

/* The kernel takes what is in the outbox, or refuses. */
#define SEND(c) ob = ob & ~(BIT(c) & ~clogged)

inline shut(c) {
    assert(HAS(gone, c) || HAS(hup, c) || got[c] == answered[c]);        /* nothing received goes unanswered */
    own[c] = CLOSING
#ifdef X_FREE_AT_ONCE
    ; own[c] = FREED; watched = watched & ~BIT(c); wwatch = wwatch & ~BIT(c)
#endif
}

/* The leader has the connection again: what now? d_step, the lead's own data. */
inline back(c) {
    own[c] = LOOP;
#ifdef X_DEFER_ANSWERS
    WHEN(!buf[c], SEND(c));
#else
    SEND(c);
#endif
    if
    :: HAS(gone, c) -> ob = ob & ~BIT(c); shut(c)
    :: else ->
        if
        :: HAS(ob, c) -> wwatch = wwatch | BIT(c)
        :: else -> wwatch = wwatch & ~BIT(c)
        fi;
        if
#if defined(X_READY_WITH_OUTBOX) || defined(X_DEFER_ANSWERS)
        :: buf[c] -> own[c] = READY; ready = ready | BIT(c)
#else
        :: buf[c] && !HAS(ob, c) -> own[c] = READY; ready = ready | BIT(c)  /* pipelined: parsed before it is watched */
#endif
        :: else ->
#ifndef X_NO_REWATCH
            watched = watched | BIT(c);
#endif
            WHEN(draining && !HAS(ob, c) && !buf[c], shut(c))
        fi
    fi;
    ONE_OWNER(c)
}

/* One connection of `done`, already taken out of the stack. */
inline from_done(c) {
    WHEN(HAS(taken, c), assert(own[c] == DONE); back(c))
}

inline drain_conn(c) {
    WHEN(own[c] == LOOP && !HAS(ob, c) && !buf[c], shut(c))
}

#ifdef ENDED
#define CLOSES(c) HAS(closes, c)
#else
#define CLOSES(c) 0
#endif

/* An event for connection c, if there is one. */
inline event(c) {
    if
    :: HAS(evs, c) ->
        assert(own[c] != FREED);                        /* an event in use never meets freed memory */
        WHEN(own[c] == NEW, own[c] = LOOP; watched = watched | BIT(c));
        if
        :: own[c] == LOOP ->
            if
            :: HAS(wwatch, c) ->
                SEND(c);
                WHEN(!HAS(ob, c), wwatch = wwatch & ~BIT(c))
            :: else
            fi;
            buf[c] = buf[c] + inn[c]; got[c] = got[c] + inn[c]; inn[c] = 0;
            if
            :: buf[c] && !HAS(ob, c) -> own[c] = READY; ready = ready | BIT(c)
            :: else ->
                WHEN(HAS(hup, c) || ((draining || CLOSES(c)) && !HAS(ob, c)), ob = ob & ~BIT(c); shut(c))
            fi
        :: own[c] == CLOSING
        :: else ->                                      /* somebody else's: unwatch, note */
#ifdef X_CLOSE_FOREIGN
            if
            :: HAS(hup, c) -> own[c] = CLOSING
            :: else -> watched = watched & ~BIT(c)
            fi
#else
            WHEN(HAS(hup, c), gone = gone | BIT(c));
            WHEN(inn[c] || HAS(hup, c), watched = watched & ~BIT(c));
#ifndef X_KEEP_WRITE_WATCH
            WHEN(HAS(wwatch, c) && !HAS(inslot, c), wwatch = wwatch & ~BIT(c))
#else
            skip
#endif
#endif
        fi;
        ONE_OWNER(c)
    :: else
    fi
}

inline freeing(c) {
    if
    :: own[c] == CLOSING ->
        assert(!HAS(ready, c) && !HAS(queue, c) && !HAS(done, c));
        assert(!BOUND(0, c));
#if S > 1
        assert(!BOUND(1, c));
#endif
#if S > 2
        assert(!BOUND(2, c));
#endif
        own[c] = FREED; buf[c] = 0; inn[c] = 0;
        watched = watched & ~BIT(c); wwatch = wwatch & ~BIT(c); ob = ob & ~BIT(c)
    :: else
    fi
}

#if C == 1
#define EACH(f) f(0)
#elif C == 2
#define EACH(f) f(0); f(1)
#else
#define EACH(f) f(0); f(1); f(2)
#endif

/* The leader sends the outbox of thread t, through its slot. */
inline flush(t) {
    atomic {
        if
        :: st[t] == QUIET -> assert(own[sc[t]] == THREAD); st[t] = BUSY; SEND(sc[t]);
            if
            :: HAS(ob, sc[t]) -> wwatch = wwatch | BIT(sc[t])
            :: else -> wwatch = wwatch & ~BIT(sc[t])
            fi;
            ok = 1
        :: else -> ok = 0                               /* BUSY: the thread will see the changed word */
        fi
    };
    WHEN(ok, st[t] = QUIET);
    ok = 0
}

inline attend(c) {
    WHEN(HAS(want, c) && own[c] == THREAD, wwatch = wwatch | BIT(c))
}

/* A socket has room again whose connection thread t has: send through its slot. If that is BUSY it is unwatched (or the
 * leader would spin), the thread is told, and the slot looked at once more. */
inline through_slot(t) {
    if
    :: (st[t] == QUIET || st[t] == BUSY) && HAS((evs & wwatch), sc[t]) ->
        inslot = inslot | BIT(sc[t]);
        flush(t);
        if
        :: st[t] == BUSY ->
            wwatch = wwatch & ~BIT(sc[t]);
            missed = missed | BIT(t);
#ifndef X_NO_SECOND_LOOK
            flush(t)
#endif
        :: else
        fi
    :: else
    fi
}

/* A request is answered without the application, and its connection closed: 503, or a reset in mid-content. */
#define REFUSE(c) own[c] = LOOP; ob = ob & ~BIT(c); answered[c]++; got[c] = answered[c]; buf[c] = 0; shut(c)

/* The exchange is the leader's now. When its answer is complete, what waits is sent and the connection closed after it. */
#ifdef ENDED
#ifdef X_WHOLE_RESET
#define TAKE(s, c) assert(over[s] != LATE_IN_CLOSE); REFUSE(c)
#else
#define TAKE(s, c) \
    if \
    :: HAS(whole, s) -> \
        assert(HAS(entire, s)); own[c] = LOOP; SEND(c); answered[c]++; got[c] = answered[c]; buf[c] = 0; \
        if \
        :: HAS(ob, c) -> closes = closes | BIT(c); wwatch = wwatch | BIT(c); watched = watched | BIT(c) \
        :: else -> wwatch = wwatch & ~BIT(c); shut(c) \
        fi \
    :: else -> assert(over[s] != LATE_IN_CLOSE); REFUSE(c) \
    fi
#endif
#else
#define TAKE(s, c) REFUSE(c)
#endif

#ifdef REVOKE
#define IS_LATE(s) 1              /* main may revoke any */
#else
#define IS_LATE(s) over[s]
#endif
#ifdef DEADLINE
/* Slot s needs the leader. While it is BUSY a look changes nothing: the next one comes later. */
#define DUE(s) ((over[s] && st[s] == QUIET) || (over[s] == LATE_BACK && st[s] == REVOKED))
#else
#define DUE(s) 0
#endif

/* Revoke exchange x of slot s: borrow the slot, whoever has it by now, look, take. BUSY: not now. */
inline revoke(p, s, x) {
    LEADS(p);
    atomic {
        if
        :: st[s] == QUIET -> st[s] = BUSY; ok = 1
        :: st[s] == IDLE -> st[s] = HELD; ok = 1
        :: else -> ok = 0
        fi
    };
    if
    :: ok ->
        ok = 0;
        if
#ifdef X_REVOKE_ANY_NUMBER
        :: st[s] == BUSY ->
#else
        :: st[s] == BUSY && sx[s] == x ->
#endif
            d_step { LEADS(p); c = sc[s]; assert(own[c] == THREAD && HOSTILE(c)); assert(IS_LATE(s)); TAKE(s, c); c = 0 };
#ifdef RAISE
            told[s] = x;
#endif
            st[s] = REVOKED
        :: else ->
            if
            :: st[s] == BUSY -> st[s] = QUIET
            :: else -> st[s] = IDLE
            fi
        fi
    :: else
    fi
}

#ifdef DEADLINE
#ifdef REPLACE
/* It has not come back: another thread shall do its work. */
inline lose(s) {
#ifdef X_LOSE_BY_STORE
    if
    :: st[s] == REVOKED -> st[s] = LOST; repl++
#elif defined(X_REPLACE_REVOKED)
    if
    :: noted[s] -> noted[s] = 0; repl++
#else
    if
    :: atomic { st[s] == REVOKED && sx[s] == noted[s] -> st[s] = LOST }; repl++
#endif
    :: else
    fi
}
#endif

inline look_at(p, s) {
    if
    :: over[s] && st[s] == QUIET ->
        if
        :: noted[s] == sx[s] -> revoke(p, s, noted[s])
        :: else -> noted[s] = sx[s]                     /* from here on its time runs */
        fi
#ifdef REPLACE
    :: over[s] == LATE_BACK && st[s] == REVOKED -> lose(s)
#endif
    :: else
    fi
}
#endif

#ifdef ALARM
#if S == 1
#define ANY(what) what(0)
#elif S == 2
#define ANY(what) (what(0) || what(1))
#else
#define ANY(what) (what(0) || what(1) || what(2))
#endif
#ifdef QDROP
#define LATE_IN_QUEUE (queue & late)
#else
#define LATE_IN_QUEUE 0
#endif
/* The alarm, and what there is to do at it: where it would change nothing it is left out, or it would hide deadlocks. */
#define ALARMED (armed && (ANY(DUE) || LATE_IN_QUEUE || (!ANY(RUNS) && !queue)))
#else
#define ALARMED 0
#endif

/* Requests of the crew queue that nobody wants any more: their client is gone, or they waited too long. */
#ifdef QDROP
#define NOT_WANTED (queue & (gone | (armed * late)))
inline drop_queued(p) {
    do
    :: NOT_WANTED ->
        LEADS(p);
#ifdef X_DROP_WITHOUT_MUTEX
        atomic { if :: NOT_WANTED -> pick(NOT_WANTED, c) :: else -> break fi };
        atomic { queue = queue & ~BIT(c); nq-- };
#else
        LOCK;
        atomic {
            if
            :: NOT_WANTED -> pick(NOT_WANTED, c); queue = queue & ~BIT(c); COUNT(-1); own[c] = LOOP; UNLOCK
            :: else -> UNLOCK; break
            fi
        };
#endif
        d_step { LEADS(p); REFUSE(c); ONE_OWNER(c); c = 0 }
    :: else -> break
    od
}
#endif

/* First half of a turn: what came back, what main asked for, what the poller said. */
inline turn(p) {
    LEADS(p);
    d_step { taken = done; done = 0; EACH(from_done); taken = 0 };
#ifdef REVOKE
    if
    :: revreq ->
        !(st[rv_i] == BUSY && sx[rv_i] == rv_x);        /* BUSY: once more when it is over */
        revoke(p, rv_i, rv_x);
        WHEN(!((st[rv_i] == QUIET || st[rv_i] == BUSY) && sx[rv_i] == rv_x), revreq = 0)
    :: else
    fi;
#endif
#ifdef ALARM
    if
    :: ALARMED ->
        LEADS(p);
#ifdef DEADLINE
        look_at(p, 0);
#if S > 1
        look_at(p, 1);
#endif
#if S > 2
        look_at(p, 2);
#endif
#endif
#ifdef X_DISARM_WITHOUT_MUTEX
        if
        :: !queue -> WHEN(!ANY(RUNS), armed = 0)
        :: else
        fi
#else
        LOCK;
        atomic { WHEN(!queue && !ANY(RUNS), armed = 0); UNLOCK }
#endif
    :: else
    fi;
#endif
#ifdef FULL
    if
    :: want -> d_step { LEADS(p); EACH(attend); want = 0 }     /* a thread's outbox waits: watch its connection */
    :: else
    fi;
    if
    :: evs & wwatch ->                                  /* writable, and a thread owns it: through its slot */
        LEADS(p);
        through_slot(0);
#if S > 1
        through_slot(1)
#endif
    :: else
    fi;
#endif
    d_step {
        LEADS(p);
        WHEN(stop && !draining, draining = 1; EACH(drain_conn));
        EACH(event);
        evs = 0; inslot = 0
    }
#ifdef QDROP
    ;
    drop_queued(p)
#endif
}

inline queued(c) {
    WHEN(own[c] == READY, own[c] = QUEUED)
}

/* Under M: the local ready list goes to the crew queue; one free thread is signalled. */
inline ready_to_queue() {
    atomic {
        queue = queue | ready;
        COUNT(HAS(ready, 0) + HAS(ready, 1) + HAS(ready, 2));
        ready = 0;
#ifndef X_NO_ARM_QUEUE
        WHEN(queue, ARM);
#endif
        EACH(queued);
#ifndef X_NO_SIGNAL_PUSH
        WHEN(freem, signal_free(t))
#else
        skip
#endif
    }
}

/* Announce, look again, wait. Any thread may lead; `extra` is what this one has to look at besides. */
inline doze(p, extra) {
    LEADS(p);
    sleeping = 1;
#ifndef X_NO_LOOK_SLEEP
    if
#ifdef X_NO_LOOK_STOP
    :: done || revreq || want || (extra) -> skip
#else
    :: done || (stop && !draining) || revreq || want || (extra) -> skip
#endif
    :: else ->
#endif
        atomic { (wakeh || EVENTS || ALARMED) -> evs = EVENTS; LEADS(p) }
#ifndef X_NO_LOOK_SLEEP
    fi;
#endif
    sleeping = 0;
    wakeh = 0
}

inline wake_leader() {
#ifdef X_NO_WAKE
    skip
#else
    WHEN(sleeping, wakeh = 1)
#endif
}

inline wake_parked_keeper() {
    WHEN(parked, LOCK; signal(K); UNLOCK)
}
