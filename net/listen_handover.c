/*
 * An accepted connection goes to another core's listener: see listen_impl.h.
 *
 * Only the descriptor travels, before any core has begun to receive on it: what the client has sent
 * waits in the socket, and whoever takes it finds it there. The message carries a pointer to the
 * listening, which outlives it.
 */
#include <errno.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_impl.h"

#include "shoal/smp/submit.h"

#include "shoal/net/listen_impl.h"
#include "shoal/net/stream_impl.h"

/* On its way. Of the accepting core's slab. */
struct shoal_handing {
    struct shoal_listener *listener;
    int fd;
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_handing) <= SHOAL_NET_HANDING_BYTES, "its slab's size");

struct offer {
    struct shoal_listening *listening;
    int fd;
    uint32_t below;
};
SHOAL_STATIC_ASSERT(sizeof(struct offer) <= SHOAL_SUBMIT_COPY_MAX, "travels in the message");

/*
 * Whether a connection can come from outside of the accept operation. What that may still bring
 * after its cancel has been asked for must find room: the last place, when it accepts one by one,
 * and all of the careful room before.
 */
static bool has_room(const struct shoal_listener *listener)
{
    uint32_t room = listener->open_max - listener->open;
    if (room > SHOAL_LISTEN_CAREFUL_ROOM || !shoal_io_busy(&listener->accept))
        return room > 0;
    return listener->accept.careful && room > 1;
}

static int take_here(void *arg, union shoal_value *out)
{
    (void)out;
    const struct offer *offer = arg;
    struct shoal_listening *listening = offer->listening;
    struct shoal_listener *listener = listening->listeners[shoal_core_self->id];
    struct shoal_net *net = shoal_net_self();
    int rc = SHOAL_ESTOPPING;
    if (listener != NULL) { /* one that is closing serves too, as long as it is there */
        if (!has_room(listener))
            rc = -EMFILE;
        else if (shoal_load_open(&net->load) >= offer->below)
            rc = -EAGAIN; /* the sender's numbers were old */
        else
            rc = listening->accepted(listener, offer->fd, listening->arg);
    }
    if (rc < 0) {
        net->handover.refused++;
        return rc;
    }
    shoal_listener_take_room(listener);
    net->handover.taken++;
    return 0;
}

static void settled(struct shoal_task *task)
{
    void *ctx;
    char *text;
    union shoal_value value;
    int rc = shoal_future_outcome(task, &ctx, &value, &text);
    shoal_text_free(text);
    struct shoal_net *net = shoal_net_self();
    struct shoal_handing handing = *(struct shoal_handing *)ctx;
    struct shoal_listener *listener = handing.listener;
    shoal_slab_give(&net->handings, ctx);
    listener->handing--;
    if (rc == 0) {
        net->handover.handed++;
        shoal_listener_give_room(listener);
    } else {
        net->handover.kept++;
        shoal_listener_serve(listener, handing.fd);
    }
    if (listener->stopper != NULL)
        shoal_fiber_make_ready(shoal_core_self, listener->stopper);
}

bool shoal_listener_hand_over(struct shoal_listener *listener, int fd)
{
    struct shoal_balance_target target;
    struct shoal_net *net = shoal_net_self();
    if (listener->closing || listener->handing >= SHOAL_LISTEN_HANDING_MAX ||
        !shoal_balancer_pick(listener->balancer, shoal_core_self->now_ns, &target))
        return false;
    struct shoal_handing *handing = shoal_slab_take(&net->handings);
    if (handing == NULL)
        return false;
    *handing = (struct shoal_handing){.listener = listener, .fd = fd};
    const struct offer offer = {.listening = listener->listening, .fd = fd, .below = target.below};
    struct shoal_future *taken =
        shoal_submit_copy_to(target.core, take_here, &offer, sizeof(offer));
    if (shoal_future_consume(taken, settled, handing) != 0) { /* no memory: nothing was sent */
        shoal_slab_give(&net->handings, handing);
        return false;
    }
    listener->handing++;
    return true;
}
