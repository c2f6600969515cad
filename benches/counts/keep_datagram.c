/* keep_datagram - keepsock: UDP one by one */
#include "keep_datagram.h"

static void open_sockets(void)
{
    open_two(false);
}

static void exchange(void)
{
    keepsock_error *error = NULL;
    keepsock_datagram_info info;

    for (unsigned i = 0; i < BATCH; i++)
        must(keepsock_datagram_send(sender, data[i], length[i], &error), error);
    for (unsigned i = 0; i < BATCH; i++) {
        must(keepsock_datagram_recv(receiver, got[0], sizeof got[0], &info, sizeof info, &error), error);
        arrived(i, got[0], info.len);
    }
}
