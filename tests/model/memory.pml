/*
 * Memory as threads see it. Promela is sequentially consistent: a store is seen by all at once. So
 * each thread has a store buffer here, which a process of its own drains when it likes.
 *
 * 1. Plain: stores leave the buffer in order (x86). WEAK: they leave in any order, except that two
 *    to one place do not overtake each other, and a release waits for all that came before it (the
 *    stores of Arm and POWER; their loads in a wrong order are mutants of the models).
 * 2. A load sees the thread's own stores at once.
 * 3. A locked read-modify-write waits until the buffer is empty. So does one with release order
 *    when WEAK; a relaxed one does not (RMW_RELAXED), but on x86 there is no such thing.
 *
 * The model that includes this defines THREADS and LOCATIONS.
 */
#define BUFFER 4

typedef store_buffer {
    byte n;
    byte place[BUFFER];
    byte value[BUFFER];
    bit release[BUFFER];
}

byte memory[LOCATIONS];
store_buffer buffer[THREADS];

#define FENCED(t) (buffer[t].n == 0)
#ifdef WEAK
#define RMW_RELAXED(t) true
#else
#define RMW_RELAXED(t) FENCED(t)
#endif

/* Puts a store into the buffer of thread `t`; waits while it is full. */
inline store_as(t, where, what, ordered)
{
    d_step {
        buffer[t].n < BUFFER;
        buffer[t].place[buffer[t].n] = where;
        buffer[t].value[buffer[t].n] = what;
        buffer[t].release[buffer[t].n] = ordered;
        buffer[t].n++
    }
}

#define STORE(t, where, what)         store_as(t, where, what, 0)
#define STORE_RELEASE(t, where, what) store_as(t, where, what, 1)

/* `result` = what thread `t` sees at `where`. Use within d_step; `i` is scratch. */
inline load(t, where, result, i)
{
    result = memory[where];
    i = 0;
    do
    :: i < buffer[t].n ->
        if
        :: buffer[t].place[i] == where -> result = buffer[t].value[i]
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

/* Within d_step: the store at `k` of the buffer becomes visible to all. */
inline drain_at(t, k)
{
    memory[buffer[t].place[k]] = buffer[t].value[k];
    buffer[t].n--;
    i = k;
    do
    :: i < buffer[t].n ->
        buffer[t].place[i] = buffer[t].place[i + 1];
        buffer[t].value[i] = buffer[t].value[i + 1];
        buffer[t].release[i] = buffer[t].release[i + 1];
        i++
    :: else -> break
    od;
    buffer[t].place[i] = 0;
    buffer[t].value[i] = 0;
    buffer[t].release[i] = 0;
    i = 0
}

#define OVERTAKES(t, late, early)                                                                  \
    (!buffer[t].release[late] && buffer[t].place[late] != buffer[t].place[early])

proctype drain(byte t)
{
    byte i;
end:
    do
    :: d_step { buffer[t].n > 0 -> drain_at(t, 0) }
#ifdef WEAK
    :: d_step { buffer[t].n > 1 && OVERTAKES(t, 1, 0) -> drain_at(t, 1) }
    :: d_step { buffer[t].n > 2 && OVERTAKES(t, 2, 0) && OVERTAKES(t, 2, 1) -> drain_at(t, 2) }
    :: d_step {
        buffer[t].n > 3 && OVERTAKES(t, 3, 0) && OVERTAKES(t, 3, 1) && OVERTAKES(t, 3, 2) ->
        drain_at(t, 3)
    }
#endif
    od
}
