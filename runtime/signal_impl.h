/*
 * Signals for the library itself: a hook that runs from the loop.
 */
#ifndef SHOAL_RUNTIME_SIGNAL_IMPL_H
#define SHOAL_RUNTIME_SIGNAL_IMPL_H

#include "shoal/runtime/signal.h"

/*
 * As shoal_signal_subscribe(), but each time that deliveries have come `hook(signal)` is called
 * from the calling core's loop, outside fibers; signal->count tells how many and is the hook's to
 * reset. It may unsubscribe. It must not wait.
 */
int shoal_signal_hook(struct shoal_signal *signal, int number,
                      void (*hook)(struct shoal_signal *signal));

#endif
