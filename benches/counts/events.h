/* The common part of the event-driven servers. */
#ifndef EVENTS_H
#define EVENTS_H
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

/*
 * No read waits in an event-driven server, so READ_TIMEOUT_MS, an argument of all servers,
 * has no effect. A message that begins with BROADCAST is sent to every connection.
 */
enum { SIZE = 256, BROADCAST = 'b' };

/* Thousands of connections need more descriptors than the usual soft limit. */
static inline void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
            return;
    }
    perror("RLIMIT_NOFILE");
    exit(1);
}
#endif
