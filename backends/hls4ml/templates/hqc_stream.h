#ifndef HQC_STREAM_H_
#define HQC_STREAM_H_

#include "nnet_common.h"

// Streams of both tools are read and written in the same way, so templates take them as types of
// their own (in_S, out_S): hls::stream or ac_channel of packets, nnet::array.

namespace nnet {

// All of a stream's elements of one sample, in order.
template <class data_T, unsigned N, class in_S> void hqc_collect(in_S &stream, typename data_T::value_type held[N]) {
Packets:
    for (unsigned ii = 0; ii < N / data_T::size; ii++) {
        #pragma HLS PIPELINE
        const data_T packet = stream.read();
    Elements:
        for (unsigned jj = 0; jj < data_T::size; jj++) {
            #pragma HLS UNROLL
            held[ii * data_T::size + jj] = packet[jj];
        }
    }
}

} // namespace nnet

#endif
