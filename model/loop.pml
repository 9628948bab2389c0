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
#define K N                       /* the keeper's number */
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
bit waiting[N + 1];               /* in a cond wait; a signal makes it 0, and is lost when it is 0 already */
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
byte st[N];
byte sc[N];
#ifdef REVOKE
byte sx[N];
#define NUMBER(i) sx[i]++
#else
#define NUMBER(i) skip
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
#if N > 1
    signal(1);
#endif
#if N > 2
    signal(2)
#endif
}

/* Under M: take a thread off the free stack. */
inline pop(t) {
    if
    :: HAS(freem, 0) -> t = 0
#if N > 1
    :: HAS(freem, 1) -> t = 1
#endif
#if N > 2
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
                WHEN(HAS(hup, c) || (draining && !HAS(ob, c)), ob = ob & ~BIT(c); shut(c))
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
        assert(!(st[0] && st[0] != REVOKED && sc[0] == c));
#if N > 1
        assert(!(st[1] && st[1] != REVOKED && sc[1] == c));
#endif
#if N > 2
        assert(!(st[2] && st[2] != REVOKED && sc[2] == c));
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

/* First half of a turn: what came back, what main asked for, what the poller said. */
inline turn(p) {
    LEADS(p);
    d_step { taken = done; done = 0; EACH(from_done); taken = 0 };
#ifdef REVOKE
    if
    :: revreq ->
        LEADS(p);
        atomic {                                        /* the compare-and-swap; BUSY: once more when it is over */
#ifdef X_REVOKE_ANY_NUMBER
            !(st[rv_i] == BUSY);
            if
            :: st[rv_i] == QUIET ->
#else
            !(st[rv_i] == BUSY && sx[rv_i] == rv_x);
            if
            :: st[rv_i] == QUIET && sx[rv_i] == rv_x ->
#endif
                st[rv_i] = REVOKED; c = sc[rv_i];
                assert(own[c] == THREAD); assert(c == 0);
                own[c] = LOOP; ob = ob & ~BIT(c);       /* 503, or a reset in mid-content */
                answered[c]++; got[c] = answered[c]; buf[c] = 0; shut(c); c = 0
            :: else
            fi
        };
        revreq = 0
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
#if N > 1
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
}

inline queued(c) {
    WHEN(own[c] == READY, own[c] = QUEUED)
}

/* Under M: the local ready list goes to the crew queue; one free thread is signalled. */
inline ready_to_queue() {
    atomic {
        queue = queue | ready;
        ready = 0;
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
        atomic { (wakeh || EVENTS) -> evs = EVENTS; LEADS(p) }
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
