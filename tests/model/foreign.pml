/*
 * Threads that are no cores post tasks to a core that sleeps now and then (runtime/core.c:
 * shoal_core_post_foreign(), shoal_core_wake(), take_foreign(), may_sleep()).
 *
 * 1. Every task runs once, whole, and those of one thread in their order.
 * 2. The core does not block for ever while one waits: the model ends only when all have run.
 *
 * A task is a number from 1 up; NEXT(task) and ARG(task) are its two plain words, HEAD the stack
 * that all share. The core turns what it takes round.
 */
#ifndef POSTERS
#define POSTERS 2
#endif
#ifndef POSTS
#define POSTS 2
#endif
#define TASKS    (POSTERS * POSTS)
#define SPURIOUS 1

#define CORE      POSTERS
#define THREADS   (POSTERS + 1)
#define HEAD      0
#define ASLEEP    1
#define NEXT(t)   (1 + (t))
#define ARG(t)    (1 + TASKS + (t))
#define LOCATIONS (2 + 2 * TASKS)

#include "memory.pml"

bit eventfd;
byte done;

inline wake()
{
#ifndef WAKE_LOOK_FIRST
    d_step { load(me, ASLEEP, seen, i) };
#endif
    if
    :: seen != 0 ->
#ifdef WAKE_CLEARS_PLAIN
        STORE(me, ASLEEP, 0);
#else
        d_step {
            FENCED(me);
            seen = memory[ASLEEP];
            memory[ASLEEP] = 0
        };
#endif
        if
        :: seen != 0 -> eventfd = 1
        :: else
        fi
    :: else
    fi;
    seen = 0
}

proctype poster(byte me)
{
    byte posted, seen, head, i;
    do
    :: posted < POSTS ->
        posted++;
#ifdef WAKE_LOOK_FIRST
        d_step { load(me, ASLEEP, seen, i) };
#endif
        STORE(me, ARG(me * POSTS + posted), posted);
        d_step { load(me, HEAD, head, i) };
        do
        :: true ->
            STORE(me, NEXT(me * POSTS + posted), head);
#ifdef PUSH_STORE
            STORE_RELEASE(me, HEAD, me * POSTS + posted);
            break
#else
            atomic {
#ifdef PUSH_RELAXED
                RMW_RELAXED(me);
#else
                FENCED(me);
#endif
                if
                :: memory[HEAD] == head -> memory[HEAD] = me * POSTS + posted; break
                :: else -> head = memory[HEAD]
                fi
            }
#endif
        od;
        head = 0;
        wake()
    :: else -> break
    od
}

inline run_one(task)
{
    load(CORE, ARG(task), arg, i);
    assert(arg == last[(task - 1) / POSTS] + 1);
    assert(task == ((task - 1) / POSTS) * POSTS + arg);
    last[(task - 1) / POSTS] = arg;
    arg = 0;
    done++
}

/* Takes all that is there, turns it round and runs it. */
inline take()
{
#ifdef TAKE_STORE
    d_step { load(CORE, HEAD, at, i) };
    STORE_RELEASE(CORE, HEAD, 0);
#else
    d_step {
        FENCED(CORE);
        at = memory[HEAD];
        memory[HEAD] = 0
    };
#endif
    do
    :: at != 0 ->
        atomic {
            d_step { load(CORE, NEXT(at), next, i) };
#ifdef NOT_TURNED_ROUND
            run_one(at);
#else
            order[at - 1] = turned;
            turned = at;
#endif
            at = next;
            next = 0
        }
    :: else -> break
    od;
    next = 0;
    d_step {
        do
        :: turned != 0 ->
            at = turned;
            turned = order[at - 1];
            order[at - 1] = 0;
            run_one(at)
        :: else -> break
        od;
        at = 0
    }
}

inline announce_sleep()
{
#ifdef SLEEP_STORE
    STORE_RELEASE(CORE, ASLEEP, 1)
#else
    d_step {
        FENCED(CORE);
        memory[ASLEEP] = 1
    }
#endif
}

inline look_before_sleep()
{
#ifndef SLEEP_NOT_LOOKING
    d_step { load(CORE, HEAD, at, i) };
    found = (at != 0);
    at = 0
#else
    skip
#endif
}

proctype core()
{
    byte at, next, turned, arg, i, spurious;
    byte order[TASKS], last[POSTERS];
    bit found;
    do
    :: memory[HEAD] != 0 -> take()
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
            :: done == TASKS -> break
            fi
        fi;
        STORE(CORE, ASLEEP, 0)
    od
}

init
{
    atomic {
        byte t = 0;
        do
        :: t < POSTERS -> run poster(t); run drain(t); t++
        :: else -> break
        od;
        run drain(CORE);
        run core()
    }
}
