/* What the keepsock programs of UDP share: a socket, and one that is connected to it. */
#ifndef KEEP_DATAGRAM_H
#define KEEP_DATAGRAM_H
#include <keepsock.h>
#include "datagram.h"

static keepsock_datagram *sender, *receiver;

static inline void must(int32_t status, keepsock_error *error)
{
    if (status != KEEPSOCK_OK) {
        fprintf(stderr, "%s\n", keepsock_error_message(error));
        exit(1);
    }
}

static void open_two(bool coalescing)
{
    keepsock_options *options = NULL;
    keepsock_error *error = NULL;

    must(keepsock_options_new(&options, &error), error);
    must(keepsock_options_set_coalescing(options, coalescing, &error), error);
    must(keepsock_datagram_bind("127.0.0.1:0", options, &receiver, &error), error);
    keepsock_options_free(options);
    must(keepsock_datagram_connect(keepsock_datagram_endpoint(receiver), NULL, &sender, &error), error);
}
#endif
