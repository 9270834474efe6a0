/*
 * One reader and WRITERS writers, each with a ring towards it: how a message is found (smp/
 * ring_impl.h), and how the reader sleeps and is woken (runtime/core.c).
 *
 * 1. Everything that is sent is taken, whole and in order.
 * 2. The reader does not block for ever while something is left: the model ends only when all is
 *    taken, so a lost wake-up is a deadlock for spin.
 *
 * The reader takes at most one message a look, as the real one takes a bounded burst. A credit is
 * what the reader has taken, seen at once: credits and answers are mail.pml's. Each mutant (-D) takes
 * one barrier, read-modify-write or look out of it, and must fail; `check` runs them.
 */
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef MESSAGES
#define MESSAGES 3
#endif
#define SLOTS    2
#define SPURIOUS 1 /* wake-ups for another reason: a timer, a socket */

#define READER      WRITERS /* the thread; the writers are 0 and up */
#define THREADS     (WRITERS + 1)
#define DATA(w, n)  ((w) * 2 * SLOTS + (n) % SLOTS)
#define SEQ(w, n)   ((w) * 2 * SLOTS + SLOTS + (n) % SLOTS)
#define WATCHED(w)  (WRITERS * 2 * SLOTS + (w))
#define DIRTY       (WRITERS * 2 * SLOTS + WRITERS)
#define ASLEEP      (DIRTY + 1)
#define LOCATIONS   (ASLEEP + 1)

#include "memory.pml"

byte taken[WRITERS];
bit eventfd;

#define ALL_TAKEN (taken[0] == MESSAGES && taken[WRITERS - 1] == MESSAGES)

/* ---- Writing ---- */

inline wake(w)
{
#ifndef WAKE_LOOK_FIRST
    d_step { load(w, ASLEEP, seen, i) };
#endif
    if
    :: seen != 0 ->
        d_step {
            FENCED(w);
            seen = memory[ASLEEP];
            memory[ASLEEP] = 0
        };
#ifdef WAKE_WITHOUT_EVENT
        seen = 0;
#endif
        if
        :: seen != 0 -> eventfd = 1
        :: else
        fi
    :: else
    fi;
    seen = 0
}

inline announce(w)
{
#ifdef WAKE_LOOK_FIRST
    d_step { load(w, ASLEEP, seen, i) };
#endif
#if defined(DIRTY_TEST_FIRST)
    d_step { load(w, DIRTY, other, i) };
    if
    :: (other & (1 << w)) == 0 ->
        d_step {
            FENCED(w);
            memory[DIRTY] = memory[DIRTY] | (1 << w)
        }
    :: else
    fi;
    other = 0;
#elif defined(DIRTY_STORE)
    d_step { load(w, DIRTY, other, i) };
    STORE_RELEASE(w, DIRTY, other | (1 << w));
    other = 0;
#elif defined(DIRTY_RELAXED)
    d_step {
        RMW_RELAXED(w);
        memory[DIRTY] = memory[DIRTY] | (1 << w)
    };
#else
    d_step {
        FENCED(w);
        memory[DIRTY] = memory[DIRTY] | (1 << w)
    };
#endif
    wake(w)
}

inline verify(w)
{
#if defined(VERIFY_LOAD)
    d_step { load(w, WATCHED(w), seen, i) };
#elif defined(VERIFY_RELAXED)
    d_step {
        RMW_RELAXED(w);
        seen = memory[WATCHED(w)]
    };
#else
    d_step {
        FENCED(w);
        seen = memory[WATCHED(w)] /* fetch_add(2): only its place in the order matters here */
    };
#endif
    unverified = 0;
    if
    :: seen == 0 -> announce(w)
    :: else -> seen = 0
    fi
}

inline publish(w)
{
#if defined(SEQ_FIRST)
    STORE(w, SEQ(w, sent), sent + 1);
    STORE(w, DATA(w, sent), sent + 1);
#elif defined(SEQ_PLAIN)
    STORE(w, DATA(w, sent), sent + 1);
    STORE(w, SEQ(w, sent), sent + 1);
#else
    STORE(w, DATA(w, sent), sent + 1);
    STORE_RELEASE(w, SEQ(w, sent), sent + 1);
#endif
    sent++
}

proctype writer(byte w)
{
    byte sent, seen, other, i;
    bit unverified;
    do
    :: sent < MESSAGES && sent - taken[w] < SLOTS ->
        publish(w);
        d_step { load(w, WATCHED(w), seen, i) };
        if
        :: seen != 0 ->
#ifndef NEVER_VERIFY
            unverified = 1;
#endif
            seen = 0
        :: else ->
#ifndef NEVER_ANNOUNCE
            announce(w)
#endif
        fi
    :: unverified -> verify(w)
    :: sent == MESSAGES && !unverified -> break
    od
}

/* ---- Reading ---- */

/* Takes a message, if there is one. */
inline take(w)
{
#ifdef DATA_FIRST
    d_step { load(READER, DATA(w, taken[w]), data, i) };
#endif
    atomic {
        d_step { load(READER, SEQ(w, taken[w]), seen, i) };
        if
        :: seen == taken[w] + 1 ->
#ifndef DATA_FIRST
            d_step { load(READER, DATA(w, taken[w]), data, i) };
#endif
            assert(data == taken[w] + 1);
            taken[w]++
        :: else -> assert(seen < taken[w] + 1)
        fi;
        seen = 0;
        data = 0
    }
}

inline watch(w)
{
    d_step {
        FENCED(READER);
        memory[WATCHED(w)] = 1;
        watching[w] = 1
    }
}

/* Is something left in the ring? */
inline look(w)
{
    d_step {
        load(READER, SEQ(w, taken[w]), seen, i);
        left = (seen == taken[w] + 1);
        seen = 0
    }
}

/* `found`: something came meanwhile, and the ring is watched again. */
inline unwatch(w)
{
#ifdef LOOK_FIRST
    look(w);
#endif
#ifdef UNWATCH_STORE
    STORE_RELEASE(READER, WATCHED(w), 0);
    watching[w] = 0;
#else
    d_step {
        FENCED(READER);
        memory[WATCHED(w)] = 0;
        watching[w] = 0
    };
#endif
#if !defined(LOOK_FIRST) && !defined(NO_LAST_LOOK)
    look(w);
#endif
    if
    :: left ->
        left = 0;
        found = 1;
#ifdef LAST_LOOK_TAKES
        take(w)
#else
        watch(w)
#endif
    :: else
    fi
}

inline take_dirty()
{
#ifdef DIRTY_CLEAR_LATE
    d_step { load(READER, DIRTY, bits, i) };
#elif defined(DIRTY_CLEAR_STORE)
    d_step { load(READER, DIRTY, bits, i) };
    STORE_RELEASE(READER, DIRTY, 0);
#else
    d_step {
        FENCED(READER);
        bits = memory[DIRTY];
        memory[DIRTY] = 0
    };
#endif
    w = 0;
    do
    :: w < WRITERS ->
        if
        :: (bits & (1 << w)) != 0 ->
#ifndef DIRTY_NOT_WATCHED
            watch(w);
#endif
            take(w)
        :: else
        fi;
        w++
    :: else -> break
    od;
    bits = 0;
    w = 0;
#ifdef DIRTY_CLEAR_LATE
    d_step {
        FENCED(READER);
        memory[DIRTY] = 0
    }
#endif
}

inline announce_sleep()
{
#ifdef SLEEP_STORE
    STORE_RELEASE(READER, ASLEEP, 1)
#else
    d_step {
        FENCED(READER);
        memory[ASLEEP] = 1
    }
#endif
}

inline look_before_sleep()
{
#ifndef SLEEP_WATCHING
    do
    :: w < WRITERS && watching[w] -> unwatch(w); w++
    :: w < WRITERS && !watching[w] -> w++
    :: else -> break
    od;
    w = 0;
#endif
#ifndef SLEEP_NOT_LOOKING
    d_step {
        load(READER, DIRTY, seen, i);
        found = found | (seen != 0);
        seen = 0
    }
#else
    skip
#endif
}

proctype reader()
{
    byte seen, data, bits, w, i, spurious;
    bit left, found, watching[WRITERS];
    do
    :: memory[DIRTY] != 0 -> take_dirty()
    :: watching[0] -> take(0)
    :: watching[0] -> unwatch(0); found = 0
#if WRITERS > 1
    :: watching[1] -> take(1)
    :: watching[1] -> unwatch(1); found = 0
#endif
    :: true ->
#ifdef SLEEP_LOOK_FIRST
        look_before_sleep();
        announce_sleep();
#else
        announce_sleep();
        look_before_sleep();
#endif
        if
        :: found -> found = 0
        :: else ->
#ifdef EVENT_CLEARED_LATE
            eventfd = 0;
#endif
            if
            :: eventfd -> eventfd = 0
            :: spurious < SPURIOUS -> spurious++
            :: ALL_TAKEN -> break
            fi
        fi;
        STORE(READER, ASLEEP, 0)
    od
}

init
{
    atomic {
        byte t = 0;
        do
        :: t < WRITERS -> run writer(t); run drain(t); t++
        :: else -> break
        od;
        run drain(READER);
        run reader()
    }
}
