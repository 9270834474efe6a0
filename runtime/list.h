/*
 * An intrusive, circular, doubly linked list. The node lives in the object; nothing is allocated.
 *
 *   head <-> first <-> ... <-> last <-> head
 *
 * A node that is in no list points at itself, so that removing it again is harmless and
 * shoal_list_linked() can tell. Confined to the core that owns the objects.
 */
#ifndef SHOAL_RUNTIME_LIST_H
#define SHOAL_RUNTIME_LIST_H

#include <stdbool.h>

#include "shoal/runtime/compiler.h"

struct shoal_list {
    struct shoal_list *next;
    struct shoal_list *prev;
};

static inline void shoal_list_init(struct shoal_list *node)
{
    node->next = node;
    node->prev = node;
}

/* Whether `node` is in a list; for a head: whether the list has members. */
static inline bool shoal_list_linked(const struct shoal_list *node)
{
    return node->next != node;
}

static inline void shoal_list_push_back(struct shoal_list *head, struct shoal_list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void shoal_list_remove(struct shoal_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    shoal_list_init(node);
}

/* Takes `node` out of its list and leaves it as it is, for one that is linked anew or freed. */
static inline void shoal_list_unlink(struct shoal_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
}

/* Takes the first node out; NULL if the list is empty. */
static inline struct shoal_list *shoal_list_take_front(struct shoal_list *head)
{
    struct shoal_list *node = head->next;
    if (node == head)
        return NULL;
    shoal_list_remove(node);
    return node;
}

/* Moves all nodes of `from` to the end of `to`. */
static inline void shoal_list_splice(struct shoal_list *to, struct shoal_list *from)
{
    if (!shoal_list_linked(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    shoal_list_init(from);
}

#define SHOAL_LIST_FOREACH(node, head)                                                             \
    for (struct shoal_list *node = (head)->next; node != (head); node = node->next)

/* The body may remove `node`, and only that. */
#define SHOAL_LIST_FOREACH_SAFE(node, head)                                                        \
    for (struct shoal_list *node = (head)->next, *node##_next = node->next; node != (head);        \
         node = node##_next, node##_next = node->next)

#endif
