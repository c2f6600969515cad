/* raw_send - plain C: UDP by send and recv on connected sockets, one by one */
#define _GNU_SOURCE
#include "raw_datagram.h"

static void open_sockets(void)
{
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;

    open_two(1);
    must(getsockname(sender, (struct sockaddr *)&peer, &len) == 0, "getsockname");
    must(connect(receiver, (struct sockaddr *)&peer, len) == 0, "connect");
}

static void exchange(void)
{
    for (unsigned i = 0; i < BATCH; i++)
        must(send(sender, data[i], length[i], MSG_NOSIGNAL) >= 0, "send");
    for (unsigned i = 0; i < BATCH; i++) {
        ssize_t n = recv(receiver, got[0], sizeof got[0], 0);

        must(n >= 0, "recv");
        arrived(i, got[0], (size_t)n);
    }
}
