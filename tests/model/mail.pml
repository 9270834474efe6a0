/*
 * Two cores that ask each other: requests, answers, credits, and both cores asleep now and then
 * (smp/mailbox.c, smp/submit.c, smp/serve.c). Core 0 asks ASKS_0 times, core 1 ASKS_1 times.
 *
 * 1. Requests start in order, each once; each is answered once, to the call that it is the answer
 *    of, though long calls end in any order.
 * 2. At most SLOTS requests of a core are in flight. A slot of either ring is never written before
 *    it has been read, although answers are written without a look at the room there is.
 * 3. No deadlock: the model ends only when all is answered.
 *
 * A message is one store, its sequence number: what belongs to it is seen with it (ring.pml).
 */
#ifndef ASKS_0
#define ASKS_0 3
#endif
#ifndef ASKS_1
#define ASKS_1 0
#endif
#define SLOTS    2
#define SPURIOUS 1

#ifdef CREDITS_TOO_MANY
#define CREDITS (SLOTS + 1)
#else
#define CREDITS SLOTS
#endif

#define THREADS    2
#define REQUESTS   0
#define ANSWERS    1
#define RING(a, k) (2 * (a) + (k)) /* of what core `a` asks */
#define SEQ(r, n)  ((r) * SLOTS + (n) % SLOTS)
#define WATCHED(r) (4 * SLOTS + (r))
#define DIRTY(c)   (4 * SLOTS + 4 + (c)) /* one peer: one bit */
#define ASLEEP(c)  (4 * SLOTS + 6 + (c))
#define LOCATIONS  (4 * SLOTS + 8)

#include "memory.pml"

bit eventfd[2];
byte slot_id[4 * SLOTS]; /* what the messages carry: the id of the call */
byte sent[4];            /* by ring */
byte taken[4];
byte waiting[2 * CREDITS]; /* by asker and id: number of the request + 1 */
byte running[2 * CREDITS]; /* the same on the target */
byte in_flight[2];

#define ASKS(c)  (c == 0 -> ASKS_0 : ASKS_1)
#define ALL_DONE (taken[RING(0, ANSWERS)] == ASKS_0 && taken[RING(1, ANSWERS)] == ASKS_1)
#define CAN_END                                                                                    \
    (running[(1 - me) * CREDITS] != 0 || running[(1 - me) * CREDITS + 1] != 0)
#define CAN_ASK (sent[RING(me, REQUESTS)] < ASKS(me) && in_flight[me] < CREDITS)

/* ---- Writing ---- */

/* Each step here is one of several in ring.pml, which shows that this may be. */

inline announce(to)
{
    FENCED(me);
    memory[DIRTY(to)] = 1;
    if
    :: memory[ASLEEP(to)] != 0 ->
        memory[ASLEEP(to)] = 0;
        eventfd[to] = 1
    :: else
    fi
}

inline put(r, id)
{
    assert(sent[r] - taken[r] < SLOTS);
    slot_id[SEQ(r, sent[r])] = id;
    store_as(me, SEQ(r, sent[r]), sent[r] + 1, 1);
    sent[r]++;
    if
    :: memory[WATCHED(r)] != 0 -> unverified[r / 2] = 1
    :: else -> announce(1 - me)
    fi
}

/* `a`: whose ring it is; the one that this core writes of the two. */
inline verify(a)
{
    FENCED(me);
    unverified[a] = 0;
    if
    :: memory[WATCHED(RING(a, (a == me -> REQUESTS : ANSWERS)))] == 0 -> announce(1 - me)
    :: else
    fi
}

inline ask()
{
    id = 0;
    do
    :: waiting[me * CREDITS + id] != 0 -> id++
    :: else -> break
    od;
    in_flight[me]++;
    assert(in_flight[me] <= SLOTS);
    waiting[me * CREDITS + id] = sent[RING(me, REQUESTS)] + 1;
    put(RING(me, REQUESTS), id);
    id = 0
}

inline answer(id)
{
    running[(1 - me) * CREDITS + id] = 0;
    put(RING(1 - me, ANSWERS), id)
}

/* ---- Reading ---- */

/* Whether the next slot of ring `r` is full, into `left`. */
inline look(r)
{
    d_step {
        load(me, SEQ(r, taken[r]), seen, i);
        left = (seen == taken[r] + 1);
        assert(seen <= taken[r] + 1);
        seen = 0
    }
}

inline take_request()
{
    look(RING(1 - me, REQUESTS));
    if
    :: left ->
        left = 0;
        id = slot_id[SEQ(RING(1 - me, REQUESTS), taken[RING(1 - me, REQUESTS)])];
        assert(running[(1 - me) * CREDITS + id] == 0);
        assert(waiting[(1 - me) * CREDITS + id] == taken[RING(1 - me, REQUESTS)] + 1);
        running[(1 - me) * CREDITS + id] = waiting[(1 - me) * CREDITS + id];
        taken[RING(1 - me, REQUESTS)]++;
#ifdef CREDIT_AT_READ
        waiting[(1 - me) * CREDITS + id] = 0;
        in_flight[1 - me]--;
#endif
        if
        :: answer(id) /* a plain call */
        :: true       /* a long one */
        fi;
        id = 0
    :: else
    fi
}

inline take_answer()
{
    look(RING(me, ANSWERS));
    if
    :: left ->
        left = 0;
        id = slot_id[SEQ(RING(me, ANSWERS), taken[RING(me, ANSWERS)])];
        taken[RING(me, ANSWERS)]++;
#ifndef CREDIT_AT_READ
        assert(waiting[me * CREDITS + id] != 0);
        assert(running[me * CREDITS + id] == 0);
        waiting[me * CREDITS + id] = 0;
        in_flight[me]--;
#endif
        id = 0
    :: else
    fi
}

inline watch(r)
{
    FENCED(me);
    memory[WATCHED(r)] = 1
}

inline unwatch(r)
{
    FENCED(me);
    memory[WATCHED(r)] = 0;
    look(r);
    if
    :: left -> left = 0; found = 1; watch(r)
    :: else
    fi
}

inline sleep_begin()
{
    FENCED(me);
    memory[ASLEEP(me)] = 1
}

inline look_before_sleep()
{
#ifndef SLEEP_UNVERIFIED
    if
    :: unverified[0] -> verify(0)
    :: else
    fi;
    if
    :: unverified[1] -> verify(1)
    :: else
    fi;
#endif
#ifndef SLEEP_WATCHING_ANSWERS
    if
    :: memory[WATCHED(RING(me, ANSWERS))] != 0 -> unwatch(RING(me, ANSWERS))
    :: else
    fi;
#endif
#ifndef SLEEP_WATCHING_REQUESTS
    if
    :: memory[WATCHED(RING(1 - me, REQUESTS))] != 0 -> unwatch(RING(1 - me, REQUESTS))
    :: else
    fi
#endif
}

inline sleep_or_not()
{
    d_step {
        load(me, DIRTY(me), seen, i);
        found = found | seen;
        seen = 0
    };
    if
    :: found -> found = 0
    :: else ->
        if
        :: eventfd[me] -> eventfd[me] = 0
        :: CAN_END -> skip /* a fiber's timer */
        :: spurious < SPURIOUS -> spurious++
        :: ALL_DONE -> break
        fi
    fi;
    STORE(me, ASLEEP(me), 0)
}

proctype core(byte me)
{
    byte seen, id, i, spurious;
    bit left, found, unverified[2];
    do
    :: atomic { CAN_ASK -> ask() }
    :: atomic { running[(1 - me) * CREDITS] != 0 -> answer(0) }
    :: atomic { running[(1 - me) * CREDITS + 1] != 0 -> answer(1) }
    :: atomic { unverified[0] -> verify(0) }
    :: atomic { unverified[1] -> verify(1) }
    :: atomic {
        memory[DIRTY(me)] != 0 && FENCED(me) ->
        memory[DIRTY(me)] = 0;
        watch(RING(me, ANSWERS));
        watch(RING(1 - me, REQUESTS))
#ifdef DIRTY_REQUESTS_ONLY
        ;
        memory[WATCHED(RING(me, ANSWERS))] = 0
#endif
    }
    :: atomic { memory[WATCHED(RING(me, ANSWERS))] != 0 -> take_answer() }
    :: atomic { memory[WATCHED(RING(1 - me, REQUESTS))] != 0 -> take_request() }
    :: atomic { memory[WATCHED(RING(me, ANSWERS))] != 0 -> unwatch(RING(me, ANSWERS)); found = 0 }
    :: atomic {
        memory[WATCHED(RING(1 - me, REQUESTS))] != 0 ->
        unwatch(RING(1 - me, REQUESTS));
        found = 0
    }
    :: atomic { !CAN_ASK -> sleep_begin() };
       atomic { look_before_sleep() };
       atomic { sleep_or_not() }
    od
}

init
{
    atomic {
        run drain(0);
        run drain(1);
        run core(0);
        run core(1)
    }
}
