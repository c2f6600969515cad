/* The common part of the keepsock UDP programs: a socket, and one that is connected to it. */
#ifndef KEEP_DATAGRAM_H
#define KEEP_DATAGRAM_H
#include "keep_must.h"
#include "datagram.h"

static keepsock_datagram *sender, *receiver;

static void open_two(bool coalescing)
{
    keepsock_options *options = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];

    must(keepsock_options_new(&options, &error), error);
    must(keepsock_options_set_udp_gro(options, coalescing, &error), error);
    must(keepsock_datagram_bind("127.0.0.1:0", options, &receiver, &error), error);
    keepsock_options_free(options);
    must(keepsock_datagram_endpoint(receiver, where, sizeof where, NULL, &error), error);
    must(keepsock_datagram_connect(where, NULL, &sender, &error), error);
}
#endif
