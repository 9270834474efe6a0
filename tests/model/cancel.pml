/*
 * Cancelling a request (smp/submit.c, smp/serve.c): a bitmap of ids that the asker sets and the
 * target exchanges, while answers travel the other way and ids are used again.
 *
 * 1. Only a request that was cancelled is cancelled.
 * 2. A cancel that was asked for in time is not lost: one request ends by a cancel alone, and the
 *    model ends only when all is answered.
 *
 * The bits are many words. So the asker sets a flag after the bit (in the `watched` word) and then
 * announces; the target clears the flag before it takes the bits.
 *
 * The target may read a bit whose request it has answered. The asker cannot know whether the target
 * has taken the bit already, so an id that were used again at once could be hit between the exchange
 * and the look at the unread slots (ID_USED_AGAIN). So each id has two faces, used by turns, with a
 * bit each: the target answers nothing in that time, hence an id can come back once at most, and
 * then with its other face.
 */
#ifndef ASKS
#define ASKS 4
#endif
#define CREDITS 2
#define ENDLESS 1 /* the request that ends by a cancel alone */
#define CANCELS 2 /* beside that */
#define FACES   (2 * CREDITS)

#define THREADS      2
#define ASKER        0
#define TARGET       1
#define REQUEST(n)   ((n) % CREDITS)
#define ANSWER(n)    (CREDITS + (n) % CREDITS)
#define BITMAP       (2 * CREDITS)
#define FLAG         (2 * CREDITS + 1)
#define DIRTY        (2 * CREDITS + 2)
#define LOCATIONS    (2 * CREDITS + 3)
#define UNKNOWN      255

#include "memory.pml"

byte slot_id[CREDITS]; /* of the request, and which it is */
byte slot_number[CREDITS];
byte answer_id[CREDITS];
bit asked[ASKS];     /* to be cancelled */
bit cancelled[ASKS]; /* by the target */
byte answers_taken;

#ifdef ID_USED_AGAIN
#define OTHER_FACE(id) (id)
#else
#define OTHER_FACE(id) ((id) < CREDITS -> (id) + CREDITS : (id) - CREDITS)
#endif

inline ask()
{
    free--;
    id = free_id[free];
    waiting[id] = sent + 1;
    slot_id[REQUEST(sent)] = id;
    slot_number[REQUEST(sent)] = sent;
    STORE_RELEASE(ASKER, REQUEST(sent), sent + 1);
    sent++;
    id = 0
}

inline set(place)
{
    FENCED(ASKER);
    memory[place] = 1
}

inline set_bit(which)
{
#ifdef CANCEL_RELAXED
    RMW_RELAXED(ASKER);
#else
    FENCED(ASKER);
#endif
    memory[BITMAP] = memory[BITMAP] | (1 << which)
}

/* In three steps: the target may look between any two. */
inline cancel(which)
{
    atomic { asked[waiting[which] - 1] = 1 };
#if defined(FLAG_FIRST)
    atomic { set(FLAG) };
    atomic { set_bit(which) };
    atomic { set(DIRTY) }
#elif defined(ANNOUNCED_FIRST)
    atomic { set_bit(which) };
    atomic { set(DIRTY) };
    atomic { set(FLAG) }
#else
    atomic { set_bit(which) };
    atomic { set(FLAG) };
    atomic { set(DIRTY) }
#endif
}

inline take_answer()
{
    d_step {
        load(ASKER, ANSWER(answers_taken), seen, i);
        left = (seen == answers_taken + 1);
        seen = 0
    };
    if
    :: left ->
        left = 0;
        id = answer_id[ANSWER(answers_taken) - CREDITS];
        assert(waiting[id] != 0);
#ifndef BIT_LEFT
        if
        :: asked[waiting[id] - 1] ->
            FENCED(ASKER);
            memory[BITMAP] = memory[BITMAP] & ~(1 << id)
        :: else
        fi;
#endif
        waiting[id] = 0;
        free_id[free] = OTHER_FACE(id);
        free++;
        id = 0;
        answers_taken++
    :: else
    fi
}

#define MAY_CANCEL(id)                                                                             \
    (waiting[id] != 0 && !asked[waiting[id] - 1] &&                                                \
     (waiting[id] == ENDLESS + 1 || cancels < CANCELS))

proctype asker()
{
    byte sent, free, id, seen, i, cancels;
    bit left;
    byte free_id[CREDITS], waiting[FACES];
    atomic {
        free = CREDITS;
        free_id[0] = 0;
        free_id[1] = 1
    };
    do
    :: atomic { sent < ASKS && free > 0 -> ask() }
    :: MAY_CANCEL(0) -> cancels = cancels + (waiting[0] != ENDLESS + 1); cancel(0)
    :: MAY_CANCEL(1) -> cancels = cancels + (waiting[1] != ENDLESS + 1); cancel(1)
    :: MAY_CANCEL(2) -> cancels = cancels + (waiting[2] != ENDLESS + 1); cancel(2)
    :: MAY_CANCEL(3) -> cancels = cancels + (waiting[3] != ENDLESS + 1); cancel(3)
    :: atomic { memory[ANSWER(answers_taken)] == answers_taken + 1 -> take_answer() }
    :: answers_taken == ASKS -> break
    od
}

/* ---- The target ---- */

inline answer(which)
{
    running[which] = 0;
    answer_id[ANSWER(answered) - CREDITS] = which;
    STORE_RELEASE(TARGET, ANSWER(answered), answered + 1);
    answered++
}

/* The next request: runs, or is answered at once if it was cancelled before it began. */
inline take_request()
{
    id = slot_id[REQUEST(next)];
    number = slot_number[REQUEST(next)];
    next++;
    running[id] = number + 1;
    if
    :: cancelled[number] -> answer(id)
    :: else
    fi;
    id = 0;
    number = 0
}

/* Whatever has the id: a running call, or a request that has not been read. */
inline apply(which)
{
    if
    :: running[which] != 0 ->
        assert(asked[running[which] - 1]);
        cancelled[running[which] - 1] = 1
    :: else ->
        i = next;
        do
        :: i < next + CREDITS && i < limit && memory[REQUEST(i)] == i + 1 ->
            if
            :: slot_id[REQUEST(i)] == which ->
                assert(asked[slot_number[REQUEST(i)]]);
                cancelled[slot_number[REQUEST(i)]] = 1
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0
    fi
}

inline note_limit()
{
    limit = next;
    do
    :: limit < next + CREDITS && memory[REQUEST(limit)] == limit + 1 -> limit++
    :: else -> break
    od
}

inline take_bits()
{
    FENCED(TARGET);
    bits = memory[BITMAP];
    memory[BITMAP] = 0
}

/* What is found by itself in steps of its own, so that the asker may come between any two. */
inline apply_bits()
{
    w = 0;
    do
    :: w < FACES ->
        atomic {
            if
            :: (bits & (1 << w)) != 0 -> apply(w)
            :: else
            fi;
            w++
        }
    :: else -> break
    od;
    atomic {
        bits = 0;
        w = 0
    }
}

#define CAN_TAKE    (next < ASKS && memory[REQUEST(next)] == next + 1)
#define MAY_END(id) (running[id] != 0 && (running[id] != ENDLESS + 1 || cancelled[ENDLESS]))

proctype target()
{
    byte next, answered, id, number, bits, i, w;
#ifdef SLOTS_SEEN_BEFORE
    byte looks;
#endif
    byte limit = UNKNOWN;
    byte running[FACES];
    do
    :: atomic { CAN_TAKE -> take_request() }
    :: atomic { MAY_END(0) -> answer(0) }
    :: atomic { MAY_END(1) -> answer(1) }
    :: atomic { MAY_END(2) -> answer(2) }
    :: atomic { MAY_END(3) -> answer(3) }
#ifdef SLOTS_SEEN_BEFORE
    :: atomic { bits == 0 && looks < 2 -> looks++; note_limit() };
       atomic { take_bits() };
#else
    :: atomic { memory[DIRTY] != 0 && bits == 0 && FENCED(TARGET) -> memory[DIRTY] = 0 };
       if
       :: atomic { memory[FLAG] != 0 && FENCED(TARGET) };
#ifdef FLAG_CLEARED_LATE
          atomic { take_bits() };
          atomic { memory[FLAG] = 0 }
#else
          atomic { memory[FLAG] = 0 };
          atomic { take_bits() }
#endif
       :: memory[FLAG] == 0
       fi;
#endif
#ifdef APPLIED_LATER
    :: bits != 0 ->
#endif
       apply_bits();
       limit = UNKNOWN
    :: atomic { answers_taken == ASKS -> break }
    od
}

init
{
    atomic {
        run drain(ASKER);
        run drain(TARGET);
        run asker();
        run target()
    }
}
