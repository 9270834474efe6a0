/*
 * The limits: the bare work behind each operation, with nothing of Shoal in it.
 *
 * 1. Functions that a runtime cannot know when it is compiled are called through a volatile
 *    pointer here, so that the compiler cannot either.
 * 2. The objects are of 64 bytes, as many as the case beside it has live, and recycled through a
 *    list of free ones: the best that an allocator can do.
 * 3. The switch saves what the calling convention wants saved and ends in an indirect jump: with
 *    `ret` the processor mispredicts each one.
 */
#include <stddef.h>
#include <stdlib.h>

#include "micro.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

struct object {
    struct object *next;
    void (*run)(struct object *object);
    uint64_t payload[6];
};

static struct object objects[3 * MICRO_CHAINS > MICRO_BATCH ? 3 * MICRO_CHAINS : MICRO_BATCH];
static struct object *free_objects;
static struct object *queue_head;
static struct object **queue_tail = &queue_head;

static inline struct object *take(void)
{
    struct object *object = free_objects;
    free_objects = object->next;
    return object;
}

static inline void give(struct object *object)
{
    object->next = free_objects;
    free_objects = object;
}

static inline void push(struct object *object)
{
    object->next = NULL;
    *queue_tail = object;
    queue_tail = &object->next;
}

static inline struct object *pop(void)
{
    struct object *object = queue_head;
    if (object == NULL)
        return NULL;
    queue_head = object->next;
    if (queue_head == NULL)
        queue_tail = &queue_head;
    return object;
}

static void run_object(struct object *object)
{
    object->payload[0]++;
}

static void (*volatile function)(struct object *object) = run_object;

static void recycle_all(size_t count)
{
    free_objects = NULL;
    for (size_t i = count; i-- > 0;)
        give(&objects[i]);
}

static void tasks(struct micro_watch *watch, uint64_t ops, size_t batch)
{
    recycle_all(batch);
    micro_start(watch);
    uint64_t done = 0;
    while (done < ops) {
        for (size_t i = 0; i < batch; i++) {
            struct object *object = take();
            object->run = function;
            object->payload[0] = i;
            push(object);
        }
        struct object *object;
        while ((object = pop()) != NULL) {
            object->run(object);
            give(object);
            done++;
        }
    }
    micro_stop(watch, done);
}

void micro_limit_task_chain(struct micro_watch *watch, uint64_t ops)
{
    tasks(watch, ops, (size_t)3 * MICRO_CHAINS);
}

void micro_limit_task(struct micro_watch *watch, uint64_t ops)
{
    tasks(watch, ops, MICRO_BATCH);
}

void micro_limit_queue(struct micro_watch *watch, uint64_t ops)
{
    for (size_t i = 0; i < MICRO_BATCH; i++)
        objects[i].run = function;
    micro_start(watch);
    uint64_t done = 0;
    while (done < ops) {
        for (size_t i = 0; i < MICRO_BATCH; i++)
            push(&objects[i]);
        struct object *object;
        while ((object = pop()) != NULL) {
            object->run(object);
            done++;
        }
    }
    micro_stop(watch, done);
}

void micro_limit_slab(struct micro_watch *watch, uint64_t ops)
{
    recycle_all(MICRO_BATCH);
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        struct object *object = take();
        object->payload[0] = i;
        MICRO_USE(object); /* it is memory that somebody else will look at */
        uint64_t value = object->payload[0];
        MICRO_USE(value);
        give(object);
        MICRO_USE(free_objects);
    }
    micro_stop(watch, ops);
}

void micro_limit_call(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++)
        function(&objects[0]);
    micro_stop(watch, ops);
}

void micro_limit_load(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        uint64_t value = *(volatile uint64_t *)&objects[0].payload[1];
        MICRO_USE(value > i);
    }
    micro_stop(watch, ops);
}

void micro_limit_cycles(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
#if defined(__x86_64__)
        uint64_t value = __rdtsc();
#elif defined(__aarch64__)
        uint64_t value;
        __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
#else
        uint64_t value = i;
#endif
        MICRO_USE(value);
    }
    micro_stop(watch, ops);
}

/* ---- The switch ---- */

#define STACK_BYTES 16384

void micro_switch(void **save_sp, void *load_sp);

#if defined(__x86_64__)
__asm__(".text\n"
        ".p2align 4\n"
        ".type micro_switch, @function\n"
        "micro_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    popq %rcx\n"
        "    jmpq *%rcx\n"
        ".size micro_switch, . - micro_switch\n");
#define SAVED_WORDS 7 /* six registers and where to go on */
#define ENTRY_WORD  6
#elif defined(__aarch64__)
__asm__(".text\n"
        ".p2align 4\n"
        ".type micro_switch, %function\n"
        "micro_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    br x30\n"
        ".size micro_switch, . - micro_switch\n");
#define SAVED_WORDS 20
#define ENTRY_WORD  11
#endif

#ifdef SAVED_WORDS
static unsigned char other_stack[STACK_BYTES] __attribute__((aligned(16)));
static void *own_sp;
static void *other_sp;

static void switch_back_for_ever(void)
{
    for (;;)
        micro_switch(&other_sp, own_sp);
}

static void switches(struct micro_watch *watch, uint64_t ops, uint64_t switches_an_op)
{
    if (other_sp == NULL) {
        /* The entry finds the stack as after a call: 8 below a multiple of 16 on x86-64. */
        uintptr_t *frame = (uintptr_t *)(void *)(other_stack + STACK_BYTES - 64);
        frame -= SAVED_WORDS;
#if defined(__x86_64__)
        while (((uintptr_t)(frame + SAVED_WORDS) + 8) % 16 != 0)
            frame--;
#endif
        frame[ENTRY_WORD] = (uintptr_t)switch_back_for_ever;
        other_sp = frame;
    }
    micro_start(watch);
    uint64_t pairs = (ops * switches_an_op + 1) / 2;
    for (uint64_t i = 0; i < pairs; i++)
        micro_switch(&own_sp, other_sp);
    micro_stop(watch, pairs * 2 / switches_an_op);
}
#else
static void switches(struct micro_watch *watch, uint64_t ops, uint64_t switches_an_op)
{
    (void)switches_an_op;
    micro_limit_call(watch, ops); /* an unknown processor: at least that */
}
#endif

void micro_limit_switch(struct micro_watch *watch, uint64_t ops)
{
    switches(watch, ops, 1);
}

void micro_limit_two_switches(struct micro_watch *watch, uint64_t ops)
{
    switches(watch, ops, 2);
}
