/*
 * The nodes of a watch: see watch_impl.h.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/mem.h"
#include "shoal/runtime/watch_impl.h"

/* ---- By the kernel's number ---- */

static struct shoal_list *bucket_of(const struct shoal_watch *watch, int wd)
{
    return &watch->buckets[(size_t)(unsigned)wd & (watch->bucket_count - 1)];
}

static struct shoal_list *buckets_new(size_t count)
{
    struct shoal_list *buckets = shoal_mem_alloc(count * sizeof(*buckets));
    for (size_t i = 0; buckets != NULL && i < count; i++)
        shoal_list_init(&buckets[i]);
    return buckets;
}

int shoal_watch_buckets_init(struct shoal_watch *watch)
{
    watch->bucket_count = SHOAL_WATCH_BUCKETS_MIN;
    watch->buckets = buckets_new(watch->bucket_count);
    return watch->buckets != NULL ? 0 : -ENOMEM;
}

void shoal_watch_buckets_free(struct shoal_watch *watch)
{
    shoal_mem_free(watch->buckets, watch->bucket_count * sizeof(*watch->buckets));
}

/* Without memory the chains get longer instead. */
static void grow(struct shoal_watch *watch)
{
    struct shoal_list *old = watch->buckets;
    size_t old_count = watch->bucket_count;
    struct shoal_list *buckets = buckets_new(2 * old_count);
    if (buckets == NULL)
        return;
    watch->buckets = buckets;
    watch->bucket_count = 2 * old_count;
    for (size_t i = 0; i < old_count; i++) {
        struct shoal_list *entry;
        while ((entry = shoal_list_take_front(&old[i])) != NULL) {
            int wd = SHOAL_CONTAINER_OF(entry, struct shoal_watch_node, bucket)->wd;
            shoal_list_push_back(bucket_of(watch, wd), entry);
        }
    }
    shoal_mem_free(old, old_count * sizeof(*old));
}

void shoal_watch_node_set_wd(struct shoal_watch *watch, struct shoal_watch_node *node, int wd)
{
    if (watch->node_count >= watch->bucket_count)
        grow(watch);
    shoal_list_remove(&node->bucket);
    node->wd = wd;
    shoal_list_push_back(bucket_of(watch, wd), &node->bucket);
}

struct shoal_watch_node *shoal_watch_node_find(const struct shoal_watch *watch, int wd)
{
    const struct shoal_list *bucket = bucket_of(watch, wd);
    SHOAL_LIST_FOREACH (entry, bucket) {
        struct shoal_watch_node *node = SHOAL_CONTAINER_OF(entry, struct shoal_watch_node, bucket);
        if (node->wd == wd)
            return node;
    }
    return NULL;
}

/* ---- Life ---- */

void shoal_watch_root_unref(struct shoal_watch_root *root)
{
    if (--root->refs == 0)
        shoal_mem_free(root, sizeof(*root) + root->path_bytes);
}

static char *name_copy(const char *name, size_t *bytes)
{
    *bytes = strlen(name) + 1;
    char *copy = shoal_mem_alloc(*bytes);
    if (copy != NULL)
        memcpy(copy, name, *bytes);
    return copy;
}

struct shoal_watch_node *shoal_watch_node_new(struct shoal_watch *watch,
                                              struct shoal_watch_root *root,
                                              struct shoal_watch_node *parent, const char *name)
{
    struct shoal_watch_node *node = shoal_mem_alloc_zeroed(sizeof(*node));
    if (node == NULL)
        return NULL;
    node->name = name_copy(name, &node->name_bytes);
    if (node->name == NULL) {
        shoal_mem_free(node, sizeof(*node));
        return NULL;
    }
    shoal_list_init(&node->bucket);
    shoal_list_init(&node->children);
    shoal_list_init(&node->sibling);
    shoal_list_init(&node->work);
    node->root = root;
    root->refs++;
    node->parent = parent;
    if (parent != NULL)
        shoal_list_push_back(&parent->children, &node->sibling);
    node->wd = -1;
    node->refs = 1;
    watch->node_count++;
    return node;
}

void shoal_watch_node_unref(struct shoal_watch_node *node)
{
    if (--node->refs > 0)
        return;
    shoal_watch_root_unref(node->root);
    shoal_mem_free(node->name, node->name_bytes);
    shoal_mem_free(node, sizeof(*node));
}

static void kill_leaf(struct shoal_watch *watch, struct shoal_watch_node *node, bool in_kernel)
{
    if (node->wd >= 0 && in_kernel && watch->fd >= 0)
        (void)inotify_rm_watch(watch->fd, node->wd); /* -EINVAL: the kernel was faster */
    shoal_list_remove(&node->bucket);
    shoal_list_remove(&node->sibling);
    shoal_list_remove(&node->work);
    node->dead = true;
    watch->node_count--;
    shoal_watch_node_unref(node);
}

static void kill_all(struct shoal_watch *watch, struct shoal_watch_node *node, bool in_kernel)
{
    struct shoal_watch_node *at = node;
    for (;;) {
        while (shoal_list_linked(&at->children))
            at = SHOAL_CONTAINER_OF(at->children.next, struct shoal_watch_node, sibling);
        struct shoal_watch_node *parent = at->parent;
        bool last = at == node;
        kill_leaf(watch, at, in_kernel);
        if (last)
            return;
        at = parent;
    }
}

void shoal_watch_node_kill(struct shoal_watch *watch, struct shoal_watch_node *node)
{
    kill_all(watch, node, true);
}

void shoal_watch_node_forget_below(struct shoal_watch *watch, struct shoal_watch_node *node)
{
    while (shoal_list_linked(&node->children))
        kill_all(watch, SHOAL_CONTAINER_OF(node->children.next, struct shoal_watch_node, sibling),
                 false);
}

void shoal_watch_root_end(struct shoal_watch *watch, struct shoal_watch_root *root)
{
    shoal_list_remove(&root->node);
    if (root->top != NULL)
        shoal_watch_node_kill(watch, root->top);
    root->top = NULL;
    shoal_watch_root_unref(root);
}

void shoal_watch_node_clear(struct shoal_watch *watch, struct shoal_watch_node *node)
{
    shoal_watch_node_forget_below(watch, node);
    shoal_list_remove(&node->bucket);
    node->wd = -1;
}

/* ---- Names ---- */

/* The youngest of that name, and not one that has been moved away: there may be two for a while. */
struct shoal_watch_node *shoal_watch_child_find(const struct shoal_watch_node *parent,
                                                const char *name)
{
    for (struct shoal_list *entry = parent->children.prev; entry != &parent->children;
         entry = entry->prev) {
        struct shoal_watch_node *node = SHOAL_CONTAINER_OF(entry, struct shoal_watch_node, sibling);
        if (node->away_cookie == 0 && strcmp(node->name, name) == 0)
            return node;
    }
    return NULL;
}

int shoal_watch_node_move(struct shoal_watch_node *node, struct shoal_watch_node *parent,
                          const char *name)
{
    size_t bytes;
    char *copy = name_copy(name, &bytes);
    if (copy == NULL)
        return -ENOMEM;
    shoal_mem_free(node->name, node->name_bytes);
    node->name = copy;
    node->name_bytes = bytes;
    node->parent = parent;
    shoal_list_remove(&node->sibling);
    shoal_list_push_back(&parent->children, &node->sibling);
    return 0;
}

int shoal_watch_node_path(const struct shoal_watch_node *node, const char *name, char *out,
                          size_t size)
{
    size_t len = name != NULL ? strlen(name) : 0;
    bool slash = name != NULL;
    for (const struct shoal_watch_node *at = node; at->parent != NULL; at = at->parent) {
        len += at->name_bytes - 1 + slash;
        slash = true;
    }
    if (len >= size)
        return -ENAMETOOLONG;
    /* From the end. */
    char *end = out + len;
    *end = '\0';
    if (name != NULL) {
        size_t bytes = strlen(name);
        end -= bytes;
        memcpy(end, name, bytes);
    }
    for (const struct shoal_watch_node *at = node; at->parent != NULL; at = at->parent) {
        if (*end != '\0')
            *--end = '/';
        end -= at->name_bytes - 1;
        memcpy(end, at->name, at->name_bytes - 1);
    }
    return 0;
}
