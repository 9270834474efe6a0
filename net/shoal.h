/*
 * Everything of Shoal, for programs. The library itself never includes this.
 */
#ifndef SHOAL_SHOAL_H
#define SHOAL_SHOAL_H

#include "shoal/runtime/blocking.h"
#include "shoal/runtime/buffer.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/combine.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/directory.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fault.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/file.h"
#include "shoal/runtime/file_direct.h"
#include "shoal/runtime/file_path.h"
#include "shoal/runtime/file_stream.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/inspect.h"
#include "shoal/runtime/io.h"
#include "shoal/runtime/log.h"
#include "shoal/runtime/mem.h"
#include "shoal/runtime/mem_report.h"
#include "shoal/runtime/options.h"
#include "shoal/runtime/resolve.h"
#include "shoal/runtime/retry.h"
#include "shoal/runtime/sched_group.h"
#include "shoal/runtime/scope.h"
#include "shoal/runtime/shared_future.h"
#include "shoal/runtime/signal.h"
#include "shoal/runtime/task.h"
#include "shoal/runtime/timer.h"
#include "shoal/runtime/typed.h"

#include "shoal/smp/app.h"
#include "shoal/smp/inspect.h"
#include "shoal/smp/submit.h"
#include "shoal/smp/topology.h"

#include "shoal/net/address.h"
#include "shoal/net/http/server.h"
#include "shoal/net/http/uri.h"
#include "shoal/net/listen.h"
#include "shoal/net/stream.h"

#endif
