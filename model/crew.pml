/*
 * The crew: N application threads and one keeper over one loop. A model of the contract in the crew document,
 * for spin. model/README.md says what is left out and how to run it.
 *
 * How it is built, so that every fault becomes something spin sees at once:
 * - Nothing polls. A tick, a spin on BUSY and a wait in the poller are guards that block. So a lost wake-up is a
 *   deadlock (invalid end state), and a livelock is a cycle; both are looked for.
 * - Applications are hostile: the one on connection 0 may come back only when connection 1 has been served, when
 *   its block has reached the client, or when it has been revoked. So "somebody is always at the loop" and "no
 *   block stays unsent" are deadlocks too when they fail.
 * - Each operation of a leader asserts that the lead word names it and is not away.
 * - One statement is one atomic operation of the real code. `atomic` and `d_step` join steps only where the data
 *   is under the mutex M, or belongs to the lead, or belongs to the owner of a BUSY slot.
 *
 * Configuration (-D): N threads (1..3), C connections, R requests on each, EARLY early pass, OUTBOX blocks,
 * FULL the kernel refuses a send once, REVOKE, GONE clients that leave, AWAYSTEP other blocking steps (TLS, spool),
 * STOPANY stop at any moment, PIPE pipelined requests, DEPEND hostile application, SPURIOUS wake-ups.
 * Mutants (-D): every name that begins with X_.
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
byte clogged;                        /* set: the kernel refuses to send now */
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
byte want;                        /* set of threads whose outbox the kernel refused (atomic) */

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
bit rv_done;                      /* main asks once */
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
    SEND(c);
    if
    :: HAS(gone, c) -> ob = ob & ~BIT(c); shut(c)
    :: else ->
        if
        :: HAS(ob, c) -> wwatch = wwatch | BIT(c)
        :: else -> wwatch = wwatch & ~BIT(c)
        fi;
        if
#ifdef X_READY_WITH_OUTBOX
        :: buf[c] -> own[c] = READY; ready = ready | BIT(c)
#else
        :: buf[c] && !HAS(ob, c) -> own[c] = READY; ready = ready | BIT(c)  /* pipelined: parsed before it is watched */
#endif
        :: else ->
#ifndef X_NO_REWATCH
            watched = watched | BIT(c);
#endif
            if
            :: draining && !HAS(ob, c) && !buf[c] -> shut(c)
            :: else
            fi
        fi
    fi;
    ONE_OWNER(c)
}

/* One connection of `done`, already taken out of the stack. */
inline from_done(c) {
    if
    :: HAS(taken, c) -> assert(own[c] == DONE); back(c)
    :: else
    fi
}

inline drain_conn(c) {
    if
    :: own[c] == LOOP && !HAS(ob, c) && !buf[c] -> shut(c)
    :: else
    fi
}

/* An event for connection c, if there is one. */
inline event(c) {
    if
    :: HAS(evs, c) ->
        assert(own[c] != FREED);                        /* an event in use never meets freed memory */
        if
        :: own[c] == NEW -> own[c] = LOOP; watched = watched | BIT(c)
        :: else
        fi;
        if
        :: own[c] == LOOP ->
            if
            :: HAS(wwatch, c) ->
                SEND(c);
                if
                :: !HAS(ob, c) -> wwatch = wwatch & ~BIT(c)
                :: else
                fi
            :: else
            fi;
            buf[c] = buf[c] + inn[c]; got[c] = got[c] + inn[c]; inn[c] = 0;
            if
            :: buf[c] && !HAS(ob, c) -> own[c] = READY; ready = ready | BIT(c)
            :: else ->
                if
                :: HAS(hup, c) || (draining && !HAS(ob, c)) -> ob = ob & ~BIT(c); shut(c)
                :: else
                fi
            fi
        :: own[c] == CLOSING
        :: else ->                                      /* somebody else's: unwatch, note */
#ifdef X_CLOSE_FOREIGN
            if
            :: HAS(hup, c) -> own[c] = CLOSING
            :: else -> watched = watched & ~BIT(c)
            fi
#else
            if
            :: HAS(hup, c) -> gone = gone | BIT(c)
            :: else
            fi;
            if
            :: inn[c] || HAS(hup, c) -> watched = watched & ~BIT(c)
            :: else
            fi;
#ifndef X_KEEP_WRITE_WATCH
            if
            :: HAS(wwatch, c) && !HAS(inslot, c) -> wwatch = wwatch & ~BIT(c)
            :: else
            fi
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
    if
    :: ok -> st[t] = QUIET
    :: else
    fi;
    ok = 0
}

/* First half of a turn: what came back, what main asked for, what the poller said. */
inline turn(p) {
    LEADS(p);
    d_step { taken = done; done = 0; EACH(from_done); taken = 0 };
#ifdef REVOKE
    if
    :: revreq ->
        LEADS(p);
        revreq = 0;
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
        }
    :: else
    fi;
#endif
#ifdef FULL
    if
    :: want ->                                          /* a thread's outbox waits: watch its connection */
        LEADS(p);
        atomic { want = 0 };
        st[0] != BUSY; flush(0);
#if N > 1
        st[1] != BUSY; flush(1)
#endif
    :: else
    fi;
    if
    :: evs & wwatch ->                                  /* writable, and a thread owns it: through its slot */
        LEADS(p);
        if
        :: (st[0] == QUIET || st[0] == BUSY) && HAS((evs & wwatch), sc[0]) -> inslot = inslot | BIT(sc[0]);
            st[0] != BUSY; flush(0)
        :: else
        fi;
#if N > 1
        if
        :: (st[1] == QUIET || st[1] == BUSY) && HAS((evs & wwatch), sc[1]) -> inslot = inslot | BIT(sc[1]);
            st[1] != BUSY; flush(1)
        :: else
        fi
#endif
    :: else
    fi;
#endif
    d_step {
        LEADS(p);
        if
        :: stop && !draining -> draining = 1; EACH(drain_conn)
        :: else
        fi;
        EACH(event);
        evs = 0; inslot = 0
    }
}

/* Under M: the local ready list goes to the crew queue; one free thread is signalled. */
inline ready_to_queue() {
    atomic {
        queue = queue | ready;
        ready = 0;
        if
        :: own[0] == READY -> own[0] = QUEUED
        :: else
        fi;
#if C > 1
        if
        :: own[1] == READY -> own[1] = QUEUED
        :: else
        fi;
#endif
#if C > 2
        if
        :: own[2] == READY -> own[2] = QUEUED
        :: else
        fi;
#endif
#ifndef X_NO_SIGNAL_PUSH
        if
        :: freem -> pop(t); signal(t)
        :: else
        fi;
#endif
        t = 0
    }
}

/* Announce, look again, wait. Any thread may lead; `extra` is what this one has to look at besides. */
inline doze(p, extra) {
    LEADS(p);
    sleeping = 1;
#ifndef X_NO_LOOK_SLEEP
    if
    :: done || (stop && !draining) || revreq || want || (extra) -> skip
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
    if
    :: sleeping -> wakeh = 1
    :: else
    fi
}

inline wake_parked_keeper() {
    if
    :: parked -> LOCK; signal(K); UNLOCK
    :: else
    fi
}

/* The thread's compare-and-swap QUIET to BUSY: ok = 0 when the exchange was revoked. `touch` needs the connection. */
#define GRAB(touch) atomic { st[i] != BUSY -> assert(st[i] != IDLE); \
    if :: st[i] == QUIET -> assert(own[c] == THREAD && sc[i] == c); st[i] = BUSY; ok = 1; touch :: else -> ok = 0 fi }

proctype app(byte i) {
    byte c, t, evs, taken, inslot;
    bit ld, ok, mine;

next:                                                   /* crew_next */
    LOCK;
look:
    atomic {
        freem = freem & ~BIT(i);
        if
        :: end -> UNLOCK; goto finish
        :: !end && l_own == i -> assert(!l_away); UNLOCK; goto lead
        :: !end && l_own != i && queue && gw == 0 ->    /* slow class, or the leader is an application thread */
            gw = i + 1; pick(queue, c); queue = queue & ~BIT(c); own[c] = THREAD; goto taken_q
        :: !end && l_own != i && (!queue || gw || l_own == K) -> skip
        fi
    };
    freem = freem | BIT(i);
#ifndef X_NO_WAKE_WHEN_FREE
    if
    :: l_own == K -> wake_leader()
    :: else
    fi;
#endif
    atomic { waiting[i] = 1; UNLOCK };
#ifdef SPURIOUS
    atomic { !waiting[i] || !HAS(spur, i) -> if :: waiting[i] -> waiting[i] = 0; spur = spur | BIT(i) :: else fi };
#else
    !waiting[i];
#endif
    LOCK;
    goto look;

taken_q:                                                /* under M: an exchange as a non-leader */
    atomic { st[i] = QUIET; sc[i] = c; buf[c]--; NUMBER(i); ONE_OWNER(c); UNLOCK; ld = 0 };
    goto begin;

lead:
    turn(i);
#ifdef AWAYSTEP
    /* Something that may block (TLS, spool) on a connection whose request is not complete yet: bound first. */
    if
    :: ready & ~stepped ->
        atomic { pick(ready & ~stepped, c); stepped = stepped | BIT(c); ready = ready & ~BIT(c); own[c] = THREAD; st[i] = QUIET; sc[i] = c; NUMBER(i); LEADS(i) };
#ifdef X_AWAY_UNBOUND
        atomic { own[c] = READY; ready = ready | BIT(c); st[i] = IDLE };
#endif
        l_away = 1; wake_parked_keeper();
        gil == 0 || gil == i + 1;                       /* taken and given back */
        atomic {
            if
            :: l_own == i && l_away -> l_away = 0; st[i] = IDLE; own[c] = READY; ready = ready | BIT(c); ok = 1
            :: else -> ok = 0
            fi
        };
        if
        :: ok -> ok = 0; c = 0
        :: else ->
            GRAB(skip);
            if
            :: ok -> st[i] = IDLE; atomic { own[c] = DONE; done = done | BIT(c); ok = 0; c = 0 }; wake_leader()
            :: else -> st[i] = IDLE; c = 0
            fi;
            if
            :: gil == i + 1 -> gil = 0
            :: else
            fi;
            goto next
        fi
    :: skip
    fi;
#endif

serve:
    LEADS(i);
    if
    :: !ready && !queue -> goto turn_end
    :: else
    fi;
    if
    :: gil == i + 1                                     /* kept from the last exchange */
    :: else ->
        atomic {
#ifdef X_WAITER_STORE
            ok = (gw == 0)
        }; atomic {
            if
            :: ok -> gw = i + 1; ok = 0
#else
            if
            :: gw == 0 -> gw = i + 1
#endif
            :: else ->
                if
                :: ready -> skip
                :: else -> goto turn_end
                fi;
                goto give_queue
            fi
        }
    fi;
    if
    :: ready -> atomic { pick(ready, c); ready = ready & ~BIT(c); own[c] = THREAD }
    :: queue ->
        LOCK;
        atomic {
            if
            :: queue -> pick(queue, c); queue = queue & ~BIT(c); own[c] = THREAD; UNLOCK
            :: else ->
                UNLOCK;
                if
                :: gw == i + 1 -> gw = 0
                :: else
                fi;
                goto serve
            fi
        }
    :: !ready && !queue ->
        atomic {
            if
            :: gw == i + 1 -> gw = 0
            :: else
            fi
        };
        goto turn_end
    fi;
    atomic { st[i] = QUIET; sc[i] = c; buf[c]--; NUMBER(i); ONE_OWNER(c); LEADS(i) };

    if
#ifdef EARLY
    :: LOCK;
        atomic {
            LEADS(i);
            if
            :: freem -> pop(t); l_own = t; signal(t)
            :: else -> l_own = K; signal(K)
            fi;
            t = 0; ld = 0; UNLOCK
        }
#endif
#ifdef X_LOOK_BEFORE_AWAY
    :: atomic { ok = parked; ld = 1 }; l_away = 1;
        if
        :: ok -> LOCK; signal(K); UNLOCK
        :: else
        fi; ok = 0
#else
    :: atomic { l_away = 1; ld = 1 }; wake_parked_keeper()
#endif
    fi;

begin:
    if
    :: gil == i + 1
    :: else ->
        atomic { ngw++; assert(ngw == 1) };             /* at most one waits */
        atomic { gil == 0 -> gil = i + 1; ngw-- };
        gw = 0;
        if
        :: queue ->
#ifndef X_NO_SIGNAL_GIL
            LOCK;
            if
            :: queue && freem -> atomic { pop(t); signal(t); t = 0 }
            :: queue && !freem -> wake_leader()
            :: else
            fi;
            UNLOCK
#else
            skip
#endif
        :: else
        fi
    fi;

    /* ---- the application, with the GIL */
#ifdef OUTBOX
    if
    :: c == 0 ->
        mine = (l_own == i);
        GRAB(ob = ob | BIT(c); if :: !mine -> SEND(c) :: else fi);
        if
        :: ok ->
#ifdef FULL
            if
            :: !mine && HAS(ob, c) -> want = want | BIT(i); st[i] = QUIET; wake_leader()
            :: else -> st[i] = QUIET
            fi;
#else
            st[i] = QUIET;
#endif
            if
#ifndef X_NO_LOOK_QUIET
            :: mine && l_own != i -> GRAB(SEND(c));
                if
                :: ok ->
#ifdef FULL
                    if
                    :: HAS(ob, c) -> want = want | BIT(i); st[i] = QUIET; wake_leader()
                    :: else -> st[i] = QUIET
                    fi
#else
                    st[i] = QUIET
#endif
                :: else
                fi
#endif
            :: else
            fi
        :: else
        fi;
        ok = 0; mine = 0;
        if
        :: skip
        :: gil = 0; !HAS(ob, c) || st[i] == REVOKED || HAS(hup, c); atomic { gil == 0 -> gil = i + 1 }
        fi
    :: else
    fi;
#endif
#if defined(FULL) && defined(DEPEND)
    if
    :: c == 1 ->                                        /* waits until the client of the other has all it was owed */
        gil = 0; !HAS(ob, 0) || stop || HAS(hup, 0); atomic { gil == 0 -> gil = i + 1 }
    :: else
    fi;
#endif
#ifdef DEPEND
    if
    :: c == 0 ->                                        /* gives the GIL back, and waits for the other connection */
        gil = 0;
#if N > 1
        answered[1] || stop || HAS(hup, 1) || st[i] == REVOKED;
#else
        got[1] || stop || HAS(hup, 1) || st[i] == REVOKED;
#endif
        atomic { gil == 0 -> gil = i + 1 }
    :: else
    fi;
#endif
#ifdef REVOKE
    if
    :: skip
    :: c == 0 -> gil = 0; st[i] == REVOKED || stop; atomic { gil == 0 -> gil = i + 1 }      /* stuck until revoked */
    fi;
#endif

    /* ---- it has come back */
    if
    :: ld ->
        atomic {
#ifdef X_STORE_ON_RETURN
            if
            :: true -> l_own = i; l_away = 0;
#else
            if
            :: l_own == i && l_away -> l_away = 0;
#endif
                assert(st[i] == QUIET); st[i] = IDLE;
                ob = ob | BIT(c); answered[c]++; back(c); c = 0; ld = 0;
                goto serve
            :: else -> ld = 0
            fi
        }
    :: else
    fi;
    GRAB(ob = ob | BIT(c); SEND(c); answered[c]++);
    if
#ifdef X_PUSH_BEFORE_IDLE
    :: ok -> st[i] = QUIET; atomic { own[c] = DONE; done = done | BIT(c) }; wake_leader(); st[i] = IDLE
#else
    :: ok -> st[i] = IDLE; atomic { own[c] = DONE; done = done | BIT(c); ONE_OWNER(c) }; wake_leader()
#endif
#ifdef X_REVOKED_PUSHES
    :: else -> st[i] = IDLE; atomic { own[c] = DONE; done = done | BIT(c) }; wake_leader()
#else
    :: else -> st[i] = IDLE
#endif
    fi;
    atomic { ok = 0; c = 0 };
    LOCK;
    atomic {
        if
        :: queue -> pick(queue, c); queue = queue & ~BIT(c); own[c] = THREAD; goto taken_q      /* keeps the GIL */
        :: else -> UNLOCK
        fi
    };
    gil = 0;
    goto next;

give_queue:                                             /* somebody else waits for the GIL */
    LOCK; ready_to_queue(); UNLOCK;

turn_end:
    LEADS(i);
    d_step { EACH(freeing) };
    if
    :: gil == i + 1 ->
        atomic {
            if
            :: EVENTS && !wakeh -> evs = EVENTS; goto lead
            :: else -> gil = 0
            fi
        }
    :: else
    fi;
    if
    :: draining && GONEALL -> goto all_end
    :: else
    fi;
    doze(i, ready || (queue && gw == 0));
    goto lead;

all_end:
    LOCK;
    atomic {
        LEADS(i); end = 1; signal(0); signal(K);
#if N > 1
        signal(1);
#endif
#if N > 2
        signal(2);
#endif
        UNLOCK
    };
finish:
    ended++
}

proctype keeper() {
    byte t, evs, taken, inslot, c;
    bit ok;

tick:
    if
    :: end -> goto finish
    :: !end && l_own == K -> goto lead
    :: !end && l_own != K && l_away ->                  /* seen for a whole tick, perhaps */
        atomic {
            if
            :: l_away -> t = l_own; l_own = K; l_away = 0
            :: else -> goto tick
            fi
        };
#ifndef X_NO_FLUSH
        flush(t);
#endif
        t = 0;
        goto lead
    :: !end && l_own != K && !l_away ->                 /* no traffic */
        LOCK;
        parked = 1;
        if
#ifndef X_NO_LOOK_PARK
        :: l_away || l_own == K || end -> UNLOCK
#endif
        :: else -> atomic { waiting[K] = 1; UNLOCK }; !waiting[K]
        fi;
        parked = 0;
        goto tick
    fi;

lead:
    turn(K);
#ifndef X_READY_STAYS
    if
    :: ready -> LOCK; ready_to_queue(); UNLOCK
    :: else
    fi;
#endif
    d_step { LEADS(K); EACH(freeing) };
    if
    :: draining && GONEALL -> goto all_end
    :: else
    fi;
    LOCK;
    atomic {
        if
        :: freem -> pop(t); LEADS(K); l_own = t; signal(t); t = 0; UNLOCK; goto tick
        :: else -> UNLOCK
        fi
    };
#ifdef X_NO_LOOK_FREE
    doze(K, 0);
#else
    doze(K, freem);
#endif
    goto lead;

all_end:
    LOCK;
    atomic {
        LEADS(K); end = 1; signal(0);
#if N > 1
        signal(1);
#endif
#if N > 2
        signal(2);
#endif
        UNLOCK
    };
finish:
    ended++
}

/* Clients, and the main thread of the worker. */
#ifdef PIPE
#define MAYSEND(c) (sent[c] < R && !HAS(hup, c))
#else
#define MAYSEND(c) (sent[c] < R && answered[c] == sent[c] && !HAS(hup, c) && own[c] < CLOSING)
#endif
#define SERVED(c) (answered[c] == R || HAS(hup, c) || own[c] >= CLOSING)

active proctype world() {
    atomic {
        run keeper(); run app(0);
#if N > 1
        run app(1);
#endif
#if N > 2
        run app(2);
#endif
#ifdef FULL
        clogged = 1;
#endif
        sent[0] = 1; inn[0] = 1
    };
    do
    :: d_step { MAYSEND(0) -> sent[0]++; inn[0]++ }
#if C > 1
    :: d_step { MAYSEND(1) -> sent[1]++; inn[1]++ }
#endif
#if C > 2
    :: d_step { MAYSEND(2) -> sent[2]++; inn[2]++ }
#endif
#ifdef FULL
    :: d_step { clogged -> clogged = 0 }
#endif
#ifdef GONE
    :: d_step { !HAS(hup, 0) && own[0] < CLOSING -> hup = hup | 1 }
#endif
#ifdef REVOKE
    :: atomic { st[0] == QUIET && sc[0] == 0 && !rv_done -> rv_i = 0; rv_x = sx[0]; rv_done = 1 }; revreq = 1; wake_leader()
#if N > 1
    :: atomic { st[1] == QUIET && sc[1] == 0 && !rv_done -> rv_i = 1; rv_x = sx[1]; rv_done = 1 }; revreq = 1; wake_leader()
#endif
#endif
#ifdef STOPANY
    :: break
#else
#if C == 1
    :: SERVED(0) -> break
#elif C == 2
    :: SERVED(0) && SERVED(1) -> break
#else
    :: SERVED(0) && SERVED(1) && SERVED(2) -> break
#endif
#endif
    od;
    stop = 1;
    wake_leader();
    clogged = 0;
    ended == N + 1;
    assert(GONEALL && !ready && !queue && !done && gil == 0 && gw == 0);
    assert(got[0] == answered[0] || HAS(gone, 0));
#if C > 1
    assert(got[1] == answered[1]);
#endif
}
