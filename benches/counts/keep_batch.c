/* keep_batch - keepsock: UDP in batches, with GSO for datagrams of equal length */
#include "keep_datagram.h"

#ifndef COALESCING
#define COALESCING false
#endif

static keepsock_send_item outgoing[BATCH];
static keepsock_recv_item incoming[BATCH];

static void open_sockets(void)
{
    open_two(COALESCING);
    for (unsigned i = 0; i < BATCH; i++) {
        outgoing[i] = (keepsock_send_item){.buf = data[i], .len = length[i]};
        incoming[i] = (keepsock_recv_item){.buf = got[i], .cap = sizeof got[i]};
    }
}

static void exchange(void)
{
    keepsock_error *error = NULL;
    size_t n;

    for (size_t done = 0; done < BATCH; done += n)
        must(keepsock_datagram_send_batch(sender, outgoing + done, BATCH - done, sizeof *outgoing, &n,
                                          &error), error);
    for (size_t done = 0; done < BATCH; done += n) {
        must(keepsock_datagram_recv_batch(receiver, incoming + done, BATCH - done, sizeof *incoming, &n,
                                          &error), error);
        for (size_t i = done; i < done + n; i++)
            arrived((unsigned)i, incoming[i].buf, incoming[i].info.len);
    }
}
