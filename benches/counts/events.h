/* What the event-driven servers share. */
#ifndef EVENTS_H
#define EVENTS_H
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

/*
 * No read waits in such a server, so READ_TIMEOUT_MS, which all servers are given, says
 * nothing to it. A message that begins with BROADCAST goes to every connection.
 */
enum { SIZE = 256, BROADCAST = 'b' };

/* Thousands of connections are more descriptors than the soft limit commonly allows. */
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
