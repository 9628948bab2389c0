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
 * DEADLINE exchanges that are late are revoked; with it ENDED (needs OUTBOX) answers that are complete before close(),
 * REPLACE lost threads, RAISE exceptions raised by main, BOTH_HOSTILE; QDROP requests are dropped from the queue,
 * STOPANY stop at any moment, PIPE pipelined requests, SPURIOUS wake-ups, NOPOP a signalled thread stays on the free
 * stack until it runs. Hostile applications: DEPEND (0 waits until 1 is served), OWED (1 waits until the client of 0
 * has every byte).
 * Mutants (-D): every name that begins with X_.
 */

/* Whose applications are stuck, late or revoked. */
#ifdef BOTH_HOSTILE
#define HOSTILE(c) 1
#else
#define HOSTILE(c) ((c) == 0)
#endif
#include "loop.pml"

/* The thread's compare-and-swap QUIET to BUSY: ok = 0 when the exchange was revoked. `touch` needs the connection. */
#define GRAB(touch) atomic { st[i] != BUSY -> assert(st[i] != IDLE); \
    if :: st[i] == QUIET -> assert(own[c] == THREAD && sc[i] == c); st[i] = BUSY; ok = 1; touch :: else -> ok = 0 fi }

/* BUSY to QUIET by the thread: an outbox that waits is attended; and what the leader missed meanwhile is made up for. The
 * two may find each other at it again and again; that they do so for ever is left out (the label counts as progress). */
#ifdef FULL
#define WAITS(cond) WHEN((cond) && HAS(ob, c), want = want | BIT(c); wake_leader())
#ifndef X_NO_MAKE_UP
#define MAKE_UP(mark) do \
    :: atomic { HAS(missed, i) -> missed = missed & ~BIT(i) }; \
        GRAB(skip); \
        if \
        :: ok -> WAITS(true); mark: st[i] = QUIET \
        :: else -> break \
        fi \
    :: !HAS(missed, i) -> break \
    od
#else
#define MAKE_UP(mark) skip
#endif
#define let_go(cond, mark) WAITS(cond); st[i] = QUIET; MAKE_UP(mark)
#else
#define let_go(cond, mark) st[i] = QUIET
#endif

proctype app(byte i) {
    byte c, t, evs, taken, inslot;
    bit ld, ok, mine;

#ifdef REPLACE
end_unborn:
    atomic { HAS(work, i) -> skip };
#endif
next:                                                   /* crew_next */
#ifdef REPLACE
    assert((st[i] == IDLE || st[i] == HELD) && ABLE <= N);
#endif
    LOCK;
look:
    atomic {
        freem = freem & ~BIT(i);
        if
        :: end -> UNLOCK; goto finish
        :: !end && l_own == i -> assert(!l_away); UNLOCK;
#ifndef X_NO_ARM_THREAD
            ARM;
#endif
            goto lead
        :: !end && l_own != i && queue && gw == 0 ->    /* of a slow kind */
            gw = i + 1; pick(queue, c); queue = queue & ~BIT(c); COUNT(-1); own[c] = THREAD; goto taken_q
        :: !end && l_own != i -> skip                   /* nothing there, or a quick one: the leader's */
        fi
    };
    freem = freem | BIT(i);
#ifndef X_NO_WAKE_WHEN_FREE
    WHEN(l_own == K || queue, wake_leader());
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
    atomic { st[i] == IDLE -> st[i] = QUIET; sc[i] = c; buf[c]--; NUMBER(i); ONE_OWNER(c); UNLOCK; ld = 0 };
    goto begin;

lead:
    turn(i);
#ifdef AWAYSTEP
    /* Something that may block (TLS, spool) on a connection whose request is not complete yet: bound first. */
    if
    :: ready & ~stepped ->
        atomic {
            LEADS(i); pick(ready & ~stepped, c); stepped = stepped | BIT(c);
            ready = ready & ~BIT(c); own[c] = THREAD; st[i] = QUIET; sc[i] = c; NUMBER(i)
        };
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
            WHEN(gil == i + 1, gil = 0);
            goto next
        fi
    :: skip
    fi;
#endif

serve:
    LEADS(i);
    WHEN(!ready && !queue, goto turn_end);
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
            :: queue -> pick(queue, c); queue = queue & ~BIT(c); COUNT(-1); own[c] = THREAD; UNLOCK
            :: else ->
                UNLOCK;
                WHEN(gw == i + 1, gw = 0);
                goto serve
            fi
        }
    :: !ready && !queue -> atomic { WHEN(gw == i + 1, gw = 0) }; goto turn_end
    fi;
    atomic { st[i] = QUIET; sc[i] = c; buf[c]--; NUMBER(i); ONE_OWNER(c); LEADS(i) };

    if
#ifdef EARLY
    :: LOCK;
        atomic {
            LEADS(i);
            if
            :: freem -> pop(t); l_own = t; signal(t)
#ifdef X_NO_SIGNAL_PASS
            :: else -> l_own = K
#else
            :: else -> l_own = K; signal(K)
#endif
            fi;
            t = 0; ld = 0; UNLOCK
        }
#endif
#ifdef X_LOOK_BEFORE_AWAY
    :: atomic { ok = parked; ld = 1 }; l_away = 1;
        WHEN(ok, LOCK; signal(K); UNLOCK); ok = 0
#else
    :: atomic { l_away = 1; ld = 1 }; wake_parked_keeper()
#endif
    fi;

begin:
#ifdef DEADLINE
    if
    :: HOSTILE(c) -> over[i] = LATE                     /* before it runs, or while it does */
#ifdef REPLACE
    :: HOSTILE(c) -> over[i] = LATE_BACK                /* while it waits for the GIL */
#endif
    :: skip
    fi;
#endif
    if
    :: gil == i + 1
    :: else ->
        atomic { ngw++; assert(ngw == 1) };             /* at most one waits */
        atomic { gil == 0 -> gil = i + 1; ngw-- };
#ifdef X_LOOK_BEFORE_CLEAR
        ok = (queue != 0); gw = 0;
#elif defined(X_NO_SIGNAL_GIL)
        gw = 0;
#else
        gw = 0; ok = (queue != 0);                      /* clear, then look */
#endif
        if
        :: ok -> LOCK;
            if
            :: queue && freem -> atomic { signal_free(t) }     /* a slow one */
            :: queue -> wake_leader()                          /* a quick one, or nobody is free */
            :: else
            fi;
            UNLOCK; ok = 0
        :: else
        fi
    fi;

    /* ---- the application, with the GIL */
#ifdef DEADLINE
#if defined(RAISE) && !defined(X_MARK_LATE)
    mark[i] = sx[i];
#endif
    atomic { st[i] != BUSY -> if :: st[i] == QUIET -> skip :: else -> goto returned fi };      /* revoked by now? */
#if defined(RAISE) && defined(X_MARK_LATE)
    gil = 0; atomic { gil == 0 -> gil = i + 1 };
    mark[i] = sx[i];
#endif
#endif
#ifdef OUTBOX
    if
    :: c == 0 ->
        mine = (l_own == i);
        GRAB(ob = ob | BIT(c); if :: !mine -> SEND(c) :: else fi);
        if
        :: ok -> let_go(!mine, progress_one);
            if
#ifndef X_NO_LOOK_QUIET
            :: mine && l_own != i -> GRAB(SEND(c));
                if
                :: ok -> let_go(true, progress_two)
                :: else
                fi
#endif
            :: else
            fi
        :: else
        fi;
#ifdef ENDED
        if                                              /* it was the last block; nothing is held */
        :: ok -> atomic { whole = whole | BIT(i); entire = entire | BIT(i) }
        :: else
        fi;
#endif
        ok = 0; mine = 0;
#ifndef ENDED
        if
        :: skip
        :: gil = 0; !HAS(ob, c) || st[i] >= REVOKED || HAS(hup, c); atomic { gil == 0 -> gil = i + 1 }
        fi
#endif
    :: else
    fi;
#endif
#ifdef OWED
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

#ifdef DEADLINE
    if
    :: true                                             /* comes back by itself */
    :: over[i] == LATE -> gil = 0;                      /* stuck until it is revoked */
#ifdef ENDED
        WHEN(HAS(whole, i) && st[i] == QUIET, over[i] = LATE_IN_CLOSE);
#endif
#ifdef RAISE
        if                                              /* a write fails; or nothing but the exception can end it */
        :: st[i] >= REVOKED
        :: over[i] == LATE -> HAS(pend, i)
        fi;
#else
        st[i] >= REVOKED;
#endif
#ifdef REPLACE
        if
        :: skip
        :: over[i] = LATE_BACK
        :: over[i] = LATE_BACK; st[i] == LOST || end
#ifndef BOTH_HOSTILE
        :: atomic { over[i] = LATE_BACK; forever = forever | BIT(i) };
end_forever: false
#endif
        fi;
#endif
        atomic { gil == 0 -> gil = i + 1 }
    fi;
returned:
#ifdef RAISE
    /* An exception may have come; if it has not been raised by now, it never will. close() follows. */
#ifdef X_CLEAR_MARK_ONLY
    mark[i] = 0;
#elif !defined(X_MARK_IN_CLOSE)
    atomic { mark[i] = 0; pend = pend & ~BIT(i) };
#endif
    if
    :: skip
    :: gil = 0; atomic { gil == 0 -> gil = i + 1 }      /* close() */
    fi;
    assert(!HAS(pend, i));
#ifdef X_MARK_IN_CLOSE
    atomic { mark[i] = 0; pend = pend & ~BIT(i) };
#endif
#endif
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
#elif defined(X_WAKE_BEFORE_PUSH)
    :: ok -> st[i] = IDLE; wake_leader(); atomic { own[c] = DONE; done = done | BIT(c) }
#else
    :: ok -> st[i] = IDLE; atomic { own[c] = DONE; done = done | BIT(c); ONE_OWNER(c) }; wake_leader()
#endif
#ifdef X_REVOKED_PUSHES
    :: else -> st[i] = IDLE; atomic { own[c] = DONE; done = done | BIT(c) }; wake_leader()
#elif defined(REPLACE) && !defined(X_BACK_BY_STORE)
    :: else ->
        atomic {                                        /* the compare-and-swap REVOKED to IDLE */
            if
            :: st[i] == REVOKED -> st[i] = IDLE
            :: else -> assert(st[i] == LOST); goto lost
            fi
        }
#else
    :: else -> st[i] = IDLE
#endif
    fi;
    atomic { ok = 0; c = 0 };
    LOCK;
    atomic {
        if
        :: queue -> pick(queue, c); queue = queue & ~BIT(c); COUNT(-1); own[c] = THREAD; goto taken_q   /* slow: keeps the GIL */
        :: UNLOCK
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
    WHEN(draining && GONEALL, goto all_end);
#ifdef X_NO_LOOK_QUEUE
    doze(i, ready);
#else
    doze(i, ready || (queue && gw == 0));
#endif
    goto lead;

all_end:
    LOCK;
    atomic {
        LEADS(i); end = 1; signal_all(); UNLOCK
    };
finish:
#ifdef REPLACE
    atomic { ended++; work = work & ~BIT(i); goto end_unborn };
lost:                                                   /* it touches nothing; the slot may be used again */
    assert(gw != i + 1 && l_own != i && !HAS(freem, i));
    atomic { gil = 0; ok = 0; c = 0; ld = 0; ended++; work = work & ~BIT(i); goto end_unborn }
#else
    ended++
#endif
}

proctype keeper() {
    byte t, evs, taken, inslot, c;
    bit ok;

tick:
    if
    :: end -> goto finish
#ifdef X_NO_ARM_KEEPER
    :: !end && l_own == K -> goto lead
#else
    :: !end && l_own == K -> ARM; goto lead
#endif
    :: !end && l_own != K && l_away ->                  /* seen for a whole tick, perhaps */
        atomic {
            if
            :: l_away -> t = l_own; l_own = K; l_away = 0
            :: else -> goto tick
            fi
        };
#ifndef X_NO_ARM_KEEPER
        ARM;
#endif
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
#ifdef X_LOOK_PARK_AWAY_ONLY
        :: l_away || end -> UNLOCK
#elif defined(X_NO_LOOK_END)
        :: l_away || l_own == K -> UNLOCK
#else
        :: l_away || l_own == K || end -> UNLOCK
#endif
#endif
        :: else -> atomic { waiting[K] = 1; UNLOCK }; !waiting[K]
        fi;
        parked = 0;
        goto tick
    fi;

lead:
    turn(K);
#ifndef X_READY_STAYS
    WHEN(ready, LOCK; ready_to_queue(); UNLOCK);
#endif
    d_step { LEADS(K); EACH(freeing) };
    WHEN(draining && GONEALL, goto all_end);
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
        LEADS(K); end = 1; signal_all(); UNLOCK
    };
finish:
    ended++
}

/* Clients, and the main thread of the worker. */
#ifdef PIPE
#define MAYSEND(c) (sent[c] < R && !HAS(hup, c))
#else
#define MAYSEND(c) (sent[c] < R && answered[c] == sent[c] && !HAS(hup, c) && own[c] < CLOSING && !CLOSES(c))
#endif
#define MAYREVOKE(i) (st[i] == QUIET && sc[i] == 0 && !revreq && (!rv_done || rv_i != i || rv_x != sx[i]))  /* once each */
#define SERVED(c) (answered[c] == R || HAS(hup, c) || own[c] >= CLOSING)

/* Main raises an exception in a thread: with the GIL, and only if the thread is in the call of that exchange. */
#ifdef RAISE
#ifdef X_RAISE_UNCHECKED
#define MAIN_RAISES(i) \
    :: atomic { told[i] && gil == 0 -> told[i] = 0; pend = pend | BIT(i) }
#elif defined(X_RAISE_IN_TWO_STEPS)
#define MAIN_RAISES(i) \
    :: atomic { told[i] && gil == 0 -> raises = (mark[i] == told[i]); told[i] = 0 }; \
        atomic { gil == 0 -> if :: raises -> pend = pend | BIT(i); raises = 0 :: else fi }
#else
#define MAIN_RAISES(i) \
    :: atomic { told[i] && gil == 0 -> \
        if \
        :: mark[i] == told[i] -> pend = pend | BIT(i) \
        :: else \
        fi; \
        told[i] = 0 }
#endif
#else
#define MAIN_RAISES(i)
#endif
/* ... and starts a thread for one that was lost, on a slot that no thread has. */
#ifdef REPLACE
#define MAIN_STARTS(i) \
    :: atomic { repl && !end && !HAS(work, i) -> repl--; started++; \
        assert(st[i] == IDLE || st[i] == LOST); st[i] = IDLE; sx[i]++; work = work | BIT(i); assert(ABLE <= N) }
#else
#define MAIN_STARTS(i)
#endif
#if S == 1
#define MAIN_DUTIES MAIN_RAISES(0) MAIN_STARTS(0)
#elif S == 2
#define MAIN_DUTIES MAIN_RAISES(0) MAIN_STARTS(0) MAIN_RAISES(1) MAIN_STARTS(1)
#else
#define MAIN_DUTIES MAIN_RAISES(0) MAIN_STARTS(0) MAIN_RAISES(1) MAIN_STARTS(1) MAIN_RAISES(2) MAIN_STARTS(2)
#endif

/* What main waits for at the end: threads that were revoked may never come. */
#ifdef REPLACE
#ifdef X_STOP_WAITS_FOR_LOST
#define HOME(i) !HAS(work, i)
#else
#define HOME(i) (!HAS(work, i) || st[i] == REVOKED || st[i] == LOST)
#endif
#if S == 2
#define ALL_HOME (end && HOME(0) && HOME(1))
#else
#define ALL_HOME (end && HOME(0) && HOME(1) && HOME(2))
#endif
#define AWAY_FOREVER (HAS(forever, 0) + HAS(forever, 1) + HAS(forever, 2))
#else
#define ALL_HOME ended == N + 1
#endif

active proctype world() {
#ifdef X_RAISE_IN_TWO_STEPS
    bit raises;
#endif
    atomic {
        run keeper(); run app(0);
#if S > 1
        run app(1);
#endif
#if S > 2
        run app(2);
#endif
#ifdef REPLACE
        work = (1 << N) - 1;
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
    MAIN_DUTIES
#ifdef QDROP
    :: d_step { own[0] == QUEUED && !HAS(late, 0) -> late = late | 1 }
#if C > 1
    :: d_step { own[1] == QUEUED && !HAS(late, 1) -> late = late | 2 }
#endif
#endif
#ifdef GONE
    :: d_step { !HAS(hup, 0) && own[0] < CLOSING -> hup = hup | 1 }
#endif
#ifdef REVOKE
    :: atomic { MAYREVOKE(0) -> rv_i = 0; rv_x = sx[0]; rv_done = 1 }; revreq = 1; wake_leader()
#if N > 1
    :: atomic { MAYREVOKE(1) -> rv_i = 1; rv_x = sx[1]; rv_done = 1 }; revreq = 1; wake_leader()
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
    do
    MAIN_DUTIES
    :: ALL_HOME -> break
    od;
    assert(GONEALL && !ready && !queue && !done);
#ifdef REPLACE
    do                                                  /* in fact the process ends now */
    MAIN_DUTIES
    :: ended + AWAY_FOREVER == started + 1 -> break
    od;
#endif
    assert(GONEALL && !ready && !queue && !done && gil == 0 && gw == 0);
    assert(got[0] == answered[0] || HAS(hup, 0));
#if C > 1
    assert(got[1] == answered[1]);
#endif
}
