/* raw_sendto - plain C: UDP by sendto and recvfrom, one by one */
#define _GNU_SOURCE
#include "raw_datagram.h"

static void open_sockets(void)
{
    open_two(0);
}

static void exchange(void)
{
    for (unsigned i = 0; i < BATCH; i++)
        must(sendto(sender, data[i], length[i], MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof to) >= 0, "sendto");
    for (unsigned i = 0; i < BATCH; i++) {
        socklen_t len = sizeof from[0];
        ssize_t n = recvfrom(receiver, got[0], sizeof got[0], 0, (struct sockaddr *)from, &len);

        must(n >= 0, "recvfrom");
        arrived(i, got[0], (size_t)n);
    }
}
