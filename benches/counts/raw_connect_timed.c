/* raw_connect_timed PORT CONNECTIONS MESSAGES READ_TIMEOUT_MS - plain C: SO_RCVTIMEO, SO_SNDTIMEO */
#define _GNU_SOURCE
#include "raw_connect.h"

int main(int argc, char **argv)
{
    return run(argc, argv, 1);
}
