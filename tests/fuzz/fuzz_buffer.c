/*
 * Fuzz target of blocks, slices and chains, beside plain arrays of bytes.
 *
 *  1. A chain's bytes are those of the slices that were pushed, less what was consumed or taken.
 *  2. A block is released once, when the last slice of it is freed, and not before.
 *  3. Nothing is left at the end: every block was released, the core's memory is as before.
 *
 * Input: operations of one byte and their operands, see operate().
 */
#include "shoal/runtime/buffer.h"

#include "fuzz/fuzz_core.h"

enum { CHAINS = 3, BYTES_MAX = 1 << 16, OPERATIONS_MAX = 300, LENDERS = 64, WARM_SLICES = 4096 };

/* Memory that is handed over: must not be looked at once it was given back. */
struct lender {
    char *data;
    bool lent;
};

static struct {
    struct shoal_chain chains[CHAINS];
    unsigned char bytes[CHAINS][BYTES_MAX]; /* what the model has in each */
    size_t len[CHAINS];
    unsigned next_byte;
    struct lender lenders[LENDERS];
    unsigned lent;
} run;

static void take_back(void *ctx)
{
    struct lender *lender = ctx;
    REQUIRE(lender->lent);
    lender->lent = false;
    run.lent--;
    free(lender->data);
}

static void fill(char *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (char)run.next_byte++;
}

static void push(unsigned which, struct shoal_slice *slice)
{
    REQUIRE(slice != NULL);
    if (run.len[which] + slice->len > BYTES_MAX) {
        shoal_slice_free(slice);
        return;
    }
    memcpy(run.bytes[which] + run.len[which], slice->data, slice->len);
    run.len[which] += slice->len;
    shoal_chain_push(&run.chains[which], slice);
}

static void drop_front(unsigned which, size_t len)
{
    run.len[which] -= len;
    memmove(run.bytes[which], run.bytes[which] + len, run.len[which]);
}

static void require_same(unsigned which)
{
    const struct shoal_chain *chain = &run.chains[which];
    size_t at = 0;
    uint32_t slices = 0;
    const struct shoal_slice *last = NULL;
    for (const struct shoal_slice *slice = chain->head; slice != NULL; slice = slice->next) {
        REQUIRE(slice->block->refs > 0 && at + slice->len <= run.len[which]);
        REQUIRE(slice->data >= slice->block->data &&
                slice->data + slice->len <= slice->block->data + slice->block->size);
        REQUIRE(memcmp(slice->data, run.bytes[which] + at, slice->len) == 0);
        at += slice->len;
        slices++;
        last = slice;
    }
    REQUIRE(at == run.len[which] && chain->bytes == at);
    REQUIRE(chain->slices == slices && chain->tail == last);
}

static struct shoal_slice *lend(uint32_t len)
{
    for (unsigned i = 0; i < LENDERS; i++) {
        struct lender *lender = &run.lenders[i];
        if (lender->lent)
            continue;
        lender->data = malloc(len + 1);
        REQUIRE(lender->data != NULL);
        lender->lent = true;
        run.lent++;
        fill(lender->data, len);
        return shoal_slice_take_over(lender->data, len, take_back, lender, "lender");
    }
    return NULL;
}

static void share_front(struct fuzz_input *in, unsigned from, unsigned to)
{
    const struct shoal_slice *slice = run.chains[from].head;
    if (slice == NULL)
        return;
    const uint32_t offset = (uint32_t)(fuzz_number(in, 2) % (slice->len + 1));
    const uint32_t len = (uint32_t)(fuzz_number(in, 2) % (slice->len - offset + 1));
    struct shoal_slice *other = shoal_slice_share(slice, offset, len);
    REQUIRE(other != NULL && other->block == slice->block && other->len == len);
    REQUIRE(other->data == slice->data + offset);
    push(to, other);
}

/* A slice that is used up goes at once, since what it lies in may be waited for. */
static void consume(unsigned which, size_t len)
{
    const struct shoal_slice *head = run.chains[which].head;
    for (size_t left = len; left > 0 && left >= head->len; head = head->next)
        left -= head->len;
    shoal_chain_consume(&run.chains[which], len);
    REQUIRE(run.chains[which].head == head);
    drop_front(which, len);
}

static void operate(struct fuzz_input *in)
{
    const uint8_t code = fuzz_byte(in);
    const unsigned which = fuzz_byte(in) % CHAINS;
    struct shoal_chain *chain = &run.chains[which];
    struct shoal_slice *slice;
    switch (code % 7) {
    case 0: { /* a block of one's own */
        const uint32_t size = (uint32_t)fuzz_number(in, 2) % 5000;
        slice = shoal_slice_new(size, "fuzz");
        REQUIRE(slice != NULL && slice->len == 0 && slice->block->size >= size);
        slice->len = size;
        fill(slice->data, size);
        push(which, slice);
        break;
    }
    case 1: /* memory of another */
        slice = lend(fuzz_byte(in));
        if (slice != NULL)
            push(which, slice);
        break;
    case 2:
        share_front(in, which, fuzz_byte(in) % CHAINS);
        break;
    case 3: {
        const size_t len = run.len[which] == 0 ? 0 : fuzz_number(in, 2) % (run.len[which] + 1);
        consume(which, len);
        break;
    }
    case 4:
        slice = shoal_chain_take(chain);
        REQUIRE(slice != NULL || run.len[which] == 0);
        if (slice != NULL) {
            drop_front(which, slice->len);
            shoal_slice_free(slice);
        }
        break;
    case 5: /* from one chain to another */
        slice = shoal_chain_take(chain);
        if (slice != NULL) {
            drop_front(which, slice->len);
            push(fuzz_byte(in) % CHAINS, slice);
        }
        break;
    default:
        shoal_chain_clear(chain);
        run.len[which] = 0;
        break;
    }
}

/* Once, more slices than an input can have at a time: the slab takes no memory after that. */
static void warm_up(void)
{
    static bool warm;
    if (warm)
        return;
    warm = true;
    struct shoal_chain chain;
    shoal_chain_init(&chain);
    struct shoal_slice *first = shoal_slice_new(1, "warm");
    REQUIRE(first != NULL);
    for (unsigned i = 0; i < WARM_SLICES; i++)
        shoal_chain_push(&chain, shoal_slice_share(first, 0, 0));
    shoal_chain_clear(&chain);
    shoal_slice_free(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    struct shoal_core *core = fuzz_core();
    const uint32_t slices_before = shoal_slab_live(&core->slices);
    struct shoal_mem_stats before, after;
    for (unsigned i = 0; i < CHAINS; i++) {
        shoal_chain_init(&run.chains[i]);
        run.len[i] = 0;
    }
    warm_up();
    shoal_mem_stats(&before);
    for (unsigned i = 0; i < OPERATIONS_MAX && fuzz_more(&in); i++) {
        operate(&in);
        for (unsigned chain = 0; chain < CHAINS; chain++)
            require_same(chain);
    }
    for (unsigned i = 0; i < CHAINS; i++)
        shoal_chain_clear(&run.chains[i]);
    shoal_mem_stats(&after);
    REQUIRE(run.lent == 0);
    REQUIRE(shoal_slab_live(&core->slices) == slices_before);
    REQUIRE(after.used_bytes == before.used_bytes);
    return 0;
}
