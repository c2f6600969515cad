/* The plain C clients: five options before a blocking connect, a blocking round trip. */
#ifndef RAW_CONNECT_H
#define RAW_CONNECT_H
#include "client.h"
#include "raw.h"
#include <string.h>

static inline void round_trip(int fd)
{
    char buf[SIZE];
    size_t missing = SIZE;

    memset(buf, 'k', sizeof buf);
    must(send(fd, buf, SIZE, MSG_NOSIGNAL) == SIZE, "send");
    while (missing > 0) {
        ssize_t got = recv(fd, buf, missing, 0);

        must(got > 0, "recv");
        missing -= (size_t)got;
    }
}

/* timed: the kernel's timers, set once. SO_SNDTIMEO also limits connect. */
static inline int run(int argc, char **argv, int timed)
{
    struct task task = task_of(argc, argv);
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(task.port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };

    while (task.connections-- > 0) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        must(fd >= 0, "socket");
        set_options(fd);
        if (timed) {
            set_timeout(fd, SO_RCVTIMEO, CONNECT_WITHIN_MS);
            set_timeout(fd, SO_SNDTIMEO, CONNECT_WITHIN_MS);
        }
        must(connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect");
        for (long i = 0; i < task.messages; i++)
            round_trip(fd);
        close(fd);
    }
    return 0;
}
#endif
