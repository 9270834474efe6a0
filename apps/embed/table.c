/*
 * Tables of words, see table.h. Each core touches its own only, so that there is no lock.
 */
#include "table.h"

#include <errno.h>
#include <string.h>

#define CORES_MAX 1024 /* --smp takes no more */
#define BUCKETS   4096

struct entry {
    struct entry *next;
    uint64_t count;
    char word[WORD_MAX];
};

struct table {
    struct entry *bucket[BUCKETS];
};

static struct table *tables[CORES_MAX];

static uint64_t hash_of(const char *word)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
    for (; *word != '\0'; word++)
        hash = (hash ^ (unsigned char)*word) * UINT64_C(1099511628211);
    return hash;
}

unsigned table_core_of(const char *word, unsigned cores)
{
    return (unsigned)(hash_of(word) >> 32) % cores;
}

int table_count(void *arg, union shoal_value *out)
{
    const char *word = arg;
    struct table *table = tables[shoal_core_id()];
    struct entry **bucket = &table->bucket[hash_of(word) % BUCKETS];
    struct entry *entry = *bucket;
    while (entry != NULL && strcmp(entry->word, word) != 0)
        entry = entry->next;
    if (entry == NULL) {
        entry = shoal_mem_alloc_zeroed(sizeof(*entry));
        if (entry == NULL)
            return -ENOMEM;
        memcpy(entry->word, word, strlen(word) + 1);
        entry->next = *bucket;
        *bucket = entry;
    }
    out->u64 = ++entry->count;
    return 0;
}

static int table_new(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    struct table *table = shoal_mem_alloc_zeroed(sizeof(*table));
    tables[shoal_core_id()] = table;
    return table != NULL ? 0 : -ENOMEM;
}

static int table_free(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    struct table *table = tables[shoal_core_id()];
    tables[shoal_core_id()] = NULL;
    for (size_t i = 0; table != NULL && i < BUCKETS; i++)
        while (table->bucket[i] != NULL) {
            struct entry *entry = table->bucket[i];
            table->bucket[i] = entry->next;
            shoal_mem_free(entry, sizeof(*entry));
        }
    shoal_mem_free(table, sizeof(*table));
    return 0;
}

static void tables_free(void *arg)
{
    (void)arg;
    for (unsigned core = 0; core < shoal_core_count(); core++)
        (void)shoal_await(shoal_submit_to(core, table_free, NULL), NULL);
}

int table_setup(void *arg)
{
    int rc = shoal_at_stop(tables_free, arg);
    for (unsigned core = 0; rc == 0 && core < shoal_core_count(); core++)
        rc = shoal_await(shoal_submit_to(core, table_new, NULL), NULL);
    return rc;
}
